//! What can go wrong at an endpoint, as errors that name it.

use std::error::Error as StdError;
use std::sync::Arc;

use tower_plugins_layers::{BoxError, Reason, Refused, Unsent};

use crate::Body;

/// What failed, and at which endpoint.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {endpoint}")]
struct At {
    doing: &'static str,
    endpoint: Arc<str>,
    source: BoxError,
}

/// `cause`, as what happened while `doing` something with `endpoint`.
pub(in crate::transport) fn at(
    endpoint: &Arc<str>,
    doing: &'static str,
    cause: impl Into<BoxError>,
) -> BoxError {
    At {
        doing,
        endpoint: Arc::clone(endpoint),
        source: cause.into(),
    }
    .into()
}

pub(in crate::transport) fn connect_failed(
    endpoint: &Arc<str>,
    cause: impl Into<BoxError>,
) -> Refused {
    Refused::new(Reason::ConnectFailed).caused_by(at(endpoint, "connecting to", cause))
}

pub(in crate::transport) fn too_large(endpoint: &Arc<str>, cause: impl Into<BoxError>) -> BoxError {
    let cause = at(endpoint, "reading the response of", cause);
    Refused::new(Reason::ResponseTooLarge)
        .caused_by(cause)
        .into()
}

/// `cause`, as why a request's body did not come to its end: nothing is wrong with the endpoint.
pub(in crate::transport) fn request_broken(
    endpoint: &Arc<str>,
    cause: impl Into<BoxError>,
) -> BoxError {
    let cause = cause.into();
    // A limit on it has said all there is to say.
    if Reason::of(&*cause) == Some(Reason::RequestTooLarge) {
        return cause;
    }
    let cause = at(endpoint, "sending a request to", cause);
    Refused::new(Reason::RequestBroken).caused_by(cause).into()
}

pub(in crate::transport) fn lost(endpoint: &Arc<str>, error: impl Into<BoxError>) -> Refused {
    Refused::new(Reason::ConnectionLost).caused_by(at(endpoint, "calling", error))
}

/// The error of a request that went out, wholly or in part, and has no response.
pub(super) fn unanswered(endpoint: &Arc<str>, error: hyper::Error) -> BoxError {
    let h2 = error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>())
        .filter(|h2| h2.is_remote());
    // A GOAWAY ends only the streams that the peer did not and will not process.
    let turned_away = h2.is_some_and(|h2| {
        h2.is_go_away() || (h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM))
    });

    if turned_away {
        Unsent::<Body>::new(None, lost(endpoint, error)).into()
    } else if error.is_parse_too_large() {
        too_large(endpoint, error)
    } else if error.is_body_write_aborted() {
        // The caller's body was shorter than its content-length.
        request_broken(endpoint, error)
    } else {
        lost(endpoint, error).into()
    }
}
