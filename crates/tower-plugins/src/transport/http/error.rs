//! What hyper says went wrong, as errors that name the endpoint.

use std::error::Error as StdError;
use std::sync::Arc;

use tower_plugins_layers::BoxError;

pub(super) use super::super::error::{at, connect_failed, lost, request_broken, too_large};

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
