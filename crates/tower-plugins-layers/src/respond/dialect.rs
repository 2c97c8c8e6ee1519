use std::error::Error as StdError;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};

use crate::Refused;
use crate::authorize::Denied;

/// The kind of answer that a caller understands.
///
/// ```
/// use http::{Request, StatusCode};
/// use tower_plugins_layers::respond::Dialect;
///
/// let request = Request::get("/").body(()).unwrap();
/// let answer = Dialect::of(&request).respond(StatusCode::NOT_FOUND, 12, "no such thing");
/// assert_eq!(answer.status(), 404);
/// assert_eq!(answer.into_body(), "no such thing\n");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A status and a line of text.
    Http,
    /// A gRPC response of trailers only.
    Grpc,
}

impl Dialect {
    /// What the caller with `request` understands: gRPC if its content is that.
    pub fn of<B>(request: &Request<B>) -> Self {
        let grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if grpc { Self::Grpc } else { Self::Http }
    }

    /// An answer of `status`, or in gRPC of `code`, that says `message`. The message is one line of
    /// printable ASCII; in gRPC one that is not is left out.
    #[must_use]
    pub fn respond(self, status: StatusCode, code: i32, message: &str) -> Response<Bytes> {
        match self {
            Self::Http => {
                let mut response = Response::new(Bytes::from(format!("{message}\n")));
                *response.status_mut() = status;
                let plain = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, plain);
                response
            }
            Self::Grpc => {
                let mut response = Response::new(Bytes::new());
                let headers = response.headers_mut();
                headers.insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/grpc"),
                );
                headers.insert("grpc-status", HeaderValue::from(code));
                // Of printable ASCII only `%` needs an escape.
                if let Ok(message) = HeaderValue::try_from(message.replace('%', "%25")) {
                    headers.insert("grpc-message", message);
                }
                response
            }
        }
    }
}

/// Sets the headers by which `error` tells a caller how to go on: those of [`Refused::write_to`], and on a 401
/// the challenge that is in its [`Denied`].
///
/// ```
/// use http::Response;
/// use tower_plugins_layers::respond::write_headers;
/// use tower_plugins_layers::{Reason, Refused};
///
/// let mut answer = Response::new(());
/// let refused = Refused::new(Reason::Draining).retry_after(std::time::Duration::from_millis(1500));
/// write_headers(&refused, &mut answer);
/// assert_eq!(answer.headers()["retry-after"], "2");
/// ```
pub fn write_headers<B>(error: &(dyn StdError + 'static), response: &mut Response<B>) {
    if let Some(refused) = Refused::find(error) {
        refused.write_to(response.headers_mut());
    }
    if response.status() == StatusCode::UNAUTHORIZED
        && let Some(challenge) = Denied::find(error).and_then(Denied::challenge)
    {
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
    }
}
