use std::error::Error as StdError;
use std::fmt;

use http::HeaderValue;

use crate::{BoxError, Reason, Refused};

/// Why a caller was not let in.
///
/// It is the error of the call; the [`Refused`] with its [`Reason`] is its source.
#[derive(Debug)]
pub struct Denied {
    refused: Refused,
    why: &'static str,
    challenge: Option<HeaderValue>,
}

impl Denied {
    const fn new(reason: Reason, why: &'static str) -> Self {
        Self {
            refused: Refused::new(reason),
            why,
            challenge: None,
        }
    }

    /// The caller did not say who it is, or could not prove it.
    #[must_use]
    pub const fn unauthenticated() -> Self {
        Self::new(Reason::Unauthenticated, "not let in")
    }

    /// The caller is known and may not do this.
    #[must_use]
    pub const fn forbidden() -> Self {
        Self::new(Reason::Forbidden, "not allowed")
    }

    /// It could not be found out who the caller is or what it may do, because of `error`.
    #[must_use]
    pub fn failed(error: impl Into<BoxError>) -> Self {
        Self {
            refused: Refused::new(Reason::FilterFailed).caused_by(error),
            why: "could not be decided",
            challenge: None,
        }
    }

    /// Says more, for whoever reads the error: never what the caller showed.
    #[must_use]
    pub const fn because(mut self, why: &'static str) -> Self {
        self.why = why;
        self
    }

    /// Sets the `WWW-Authenticate` header that the answer should have.
    #[must_use]
    pub fn challenge_with(mut self, challenge: HeaderValue) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Why, in a word.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.refused.reason()
    }

    /// The `WWW-Authenticate` header that the answer should have, if there is one.
    #[must_use]
    pub const fn challenge(&self) -> Option<&HeaderValue> {
        self.challenge.as_ref()
    }

    /// The first of its kind in `error`'s chain.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(denied) = error.downcast_ref() {
                return Some(denied);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.refused, self.why)
    }
}

impl StdError for Denied {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.refused)
    }
}
