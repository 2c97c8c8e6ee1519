use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};

/// The kind of answer that a caller understands.
///
/// ```
/// use http::{Request, StatusCode};
/// use tower_plugins_layers::respond::Dialect;
///
/// let request = Request::get("/").body(()).unwrap();
/// let answer = Dialect::of(&request).respond(StatusCode::NOT_FOUND, 12, "no such thing", None);
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
    pub fn respond(
        self,
        status: StatusCode,
        code: i32,
        message: &str,
        retry_after: Option<Duration>,
    ) -> Response<Bytes> {
        let mut response = match self {
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
        };
        if let Some(after) = retry_after {
            // Whole seconds, rounded up: a caller that comes back too early is refused again.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
