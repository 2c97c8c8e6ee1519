//! An error as a response.

use http::{Request, Response};
use tower_plugins_layers::respond;

use crate::Body;
use crate::error::Error;

/// The kind of answer that a caller understands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect(respond::Dialect);

impl Dialect {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        Self(respond::Dialect::of(request))
    }

    /// `error` as this caller understands it. It says no more than what happened: causes may name
    /// addresses.
    pub(super) fn respond(self, error: &Error) -> Response<Body> {
        let (status, code) = (error.http_status(), error.grpc_code());
        let response = (self.0).respond(status, code, &error.to_string(), error.retry_after());
        response.map(Body::from)
    }
}
