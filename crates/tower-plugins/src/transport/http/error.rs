//! What can go wrong at an endpoint, as errors that name it.

use std::error::Error as StdError;
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

/// The end of a connection, and what may be behind it.
#[derive(Debug, thiserror::Error)]
#[error("{hint}")]
struct Hinted {
    hint: Box<str>,
    source: BoxError,
}

pub(super) fn hinted(hint: Option<&str>, error: impl Into<BoxError>) -> BoxError {
    let source = error.into();
    match hint {
        None => source,
        Some(hint) => Hinted {
            hint: hint.into(),
            source,
        }
        .into(),
    }
}

/// How a peer turned a request away that it did not and will not process.
pub(super) enum TurnedAway {
    /// It is going away (GOAWAY), and the request came after the last one that it took.
    Leaving,
    /// It refused this one (REFUSED_STREAM).
    Refused,
}

pub(super) fn turned_away(error: &hyper::Error) -> Option<TurnedAway> {
    let h2 = error.source()?.downcast_ref::<h2::Error>()?;
    if !h2.is_remote() {
        return None;
    }
    // A GOAWAY ends only the streams that the peer did not and will not process.
    if h2.is_go_away() {
        return Some(TurnedAway::Leaving);
    }
    let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
    refused.then_some(TurnedAway::Refused)
}

/// The error of a request that went out, wholly or in part, and has no response.
pub(super) fn unanswered(endpoint: &Arc<str>, hint: Option<&str>, error: hyper::Error) -> BoxError {
    if error.is_parse_too_large() {
        too_large(endpoint, error)
    } else if error.is_body_write_aborted() {
        // The caller's body was shorter than its content-length.
        request_broken(endpoint, error)
    } else {
        lost(endpoint, hinted(hint, error)).into()
    }
}
