//! An error as a response.

use http::{HeaderValue, Request, Response, header};

use crate::Body;
use crate::error::Error;

/// The kind of answer that a caller understands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    Http,
    Grpc,
}

impl Dialect {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if grpc { Self::Grpc } else { Self::Http }
    }

    /// `error` as this caller understands it: a status and a line of text, or a gRPC response of
    /// trailers only. Neither says more than what happened: causes may name addresses.
    pub(super) fn respond(self, error: &Error) -> Response<Body> {
        let mut response = match self {
            Self::Http => {
                let mut response = Response::new(Body::from(format!("{error}\n")));
                *response.status_mut() = error.http_status();
                let plain = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, plain);
                response
            }
            Self::Grpc => {
                let mut response = Response::new(Body::empty());
                let headers = response.headers_mut();
                headers.insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/grpc"),
                );
                headers.insert("grpc-status", HeaderValue::from(error.grpc_code()));
                // Plugin names and our own messages are of characters that need no escape, bar `%`.
                let message = error.to_string().replace('%', "%25");
                if let Ok(message) = HeaderValue::try_from(message) {
                    headers.insert("grpc-message", message);
                }
                response
            }
        };
        if let Some(after) = error.retry_after() {
            // Whole seconds, rounded up: a caller that comes back too early is refused again.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
