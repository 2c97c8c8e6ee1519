//! The error of a request that was provably never processed.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use http::Request;

use crate::BoxError;

/// The error of a request that the other side provably never processed, with the request itself
/// where it could be saved.
///
/// Such a request may be sent again whatever its method: a connection that was closed before the
/// first byte went out, an endpoint that refused the connection, a breaker whose last permit went
/// to somebody else. [`Retry`](crate::Retry) and [`Balance`](crate::Balance) look for it.
///
/// ```
/// use http::Request;
/// use tower_plugins_layers::{BoxError, Reason, Refused, Unsent};
///
/// let cause = Refused::new(Reason::ConnectFailed);
/// let error: BoxError = Unsent::new(Some(Request::new("body")), cause).into();
/// let (request, cause) = Unsent::<&str>::recover(error).unwrap();
/// assert_eq!(request.unwrap().into_body(), "body");
/// assert_eq!(Reason::of(&*cause), Some(Reason::ConnectFailed));
/// ```
pub struct Unsent<B> {
    // Never locked but by its owner: the mutex makes the error `Sync` for bodies that are not.
    request: Mutex<Option<Request<B>>>,
    cause: BoxError,
}

impl<B: Send + 'static> Unsent<B> {
    /// A request that was not sent because of `cause`.
    #[must_use]
    pub fn new(request: Option<Request<B>>, cause: impl Into<BoxError>) -> Self {
        Self {
            request: Mutex::new(request),
            cause: cause.into(),
        }
    }

    /// The request and the cause, if `error` is an `Unsent<B>`.
    ///
    /// # Errors
    /// `error` itself, if it is anything else.
    pub fn recover(error: BoxError) -> Result<(Option<Request<B>>, BoxError), BoxError> {
        let unsent = error.downcast::<Self>()?;
        let request = unsent
            .request
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Ok((request, unsent.cause))
    }
}

impl<B> fmt::Debug for Unsent<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsent")
            .field("cause", &self.cause)
            .finish_non_exhaustive()
    }
}

impl<B> fmt::Display for Unsent<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was not sent")
    }
}

impl<B> StdError for Unsent<B> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}
