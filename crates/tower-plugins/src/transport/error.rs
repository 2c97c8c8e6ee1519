//! What can go wrong at an endpoint, as errors that name it.

use std::sync::Arc;

use tower_plugins_layers::{BoxError, Reason, Refused};

/// What failed, and at which endpoint.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {endpoint}")]
struct At {
    doing: &'static str,
    endpoint: Arc<str>,
    source: BoxError,
}

/// `cause`, as what happened while `doing` something with `endpoint`.
pub(super) fn at(endpoint: &Arc<str>, doing: &'static str, cause: impl Into<BoxError>) -> BoxError {
    At {
        doing,
        endpoint: Arc::clone(endpoint),
        source: cause.into(),
    }
    .into()
}

pub(super) fn connect_failed(endpoint: &Arc<str>, cause: impl Into<BoxError>) -> Refused {
    Refused::new(Reason::ConnectFailed).caused_by(at(endpoint, "connecting to", cause))
}

pub(super) fn too_large(endpoint: &Arc<str>, cause: impl Into<BoxError>) -> BoxError {
    let cause = at(endpoint, "reading the response of", cause);
    Refused::new(Reason::ResponseTooLarge)
        .caused_by(cause)
        .into()
}

/// `cause`, as why a request's body did not come to its end: nothing is wrong with the endpoint.
pub(super) fn request_broken(endpoint: &Arc<str>, cause: impl Into<BoxError>) -> BoxError {
    let cause = cause.into();
    // A limit on it has said all there is to say.
    if Reason::of(&*cause) == Some(Reason::RequestTooLarge) {
        return cause;
    }
    let cause = at(endpoint, "sending a request to", cause);
    Refused::new(Reason::RequestBroken).caused_by(cause).into()
}

pub(super) fn lost(endpoint: &Arc<str>, error: impl Into<BoxError>) -> Refused {
    Refused::new(Reason::ConnectionLost).caused_by(at(endpoint, "calling", error))
}
