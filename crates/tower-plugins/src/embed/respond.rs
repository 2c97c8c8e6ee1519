//! An error as a response.

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use tower_plugins_layers::respond;

use crate::Body;
use crate::error::Error;

/// The kind of answer that a caller understands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect(respond::Dialect);

impl Dialect {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        Self(respond::Dialect::of(request))
    }

    /// What every HTTP client understands.
    #[cfg(feature = "http")]
    pub(super) const fn http() -> Self {
        Self(respond::Dialect::Http)
    }

    /// What every gRPC client understands.
    pub(super) const fn grpc() -> Self {
        Self(respond::Dialect::Grpc)
    }

    /// An answer of `status`, or in gRPC of `code`, that says `message`.
    pub(super) fn say(self, status: StatusCode, code: i32, message: &str) -> Response<Body> {
        self.0.respond(status, code, message).map(Body::from)
    }

    /// `error` as this caller understands it. It says no more than what happened: causes may name
    /// addresses. Its reason's word goes into the header `reason`, if there are both.
    pub(crate) fn respond(self, error: &Error, reason: Option<HeaderName>) -> Response<Body> {
        let (status, code) = (error.http_status(), error.grpc_code());
        let mut response = self.say(status, code, &error.to_string());
        respond::write_headers(error, &mut response);
        if let (Some(name), Some(reason)) = (reason, error.reason()) {
            let word = HeaderValue::from_static(reason.as_str());
            response.headers_mut().insert(name, word);
        }
        response
    }
}
