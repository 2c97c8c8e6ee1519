//! Tokens that expire.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared;
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use tokio::time::{Instant, timeout};

use crate::{BoxError, Reason, Refused};

/// The longest that a token is waited for.
const LONGEST: Duration = Duration::from_secs(30);

/// A bearer token, and when it expires. It is not printed.
#[derive(Clone)]
pub struct Token {
    header: HeaderValue,
    expires: Option<Instant>,
}

impl Token {
    /// A token that does not expire.
    ///
    /// # Errors
    /// When `token` is not part of a header's value.
    pub fn new(token: &str) -> Result<Self, InvalidHeaderValue> {
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))?;
        header.set_sensitive(true);
        Ok(Self {
            header,
            expires: None,
        })
    }

    /// It expires so long from now.
    #[must_use]
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.expires = Instant::now().checked_add(time);
        self
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Where tokens come from. A closure that gives a future is one.
///
/// The future is polled by the calls that need the token, and is given up by none of them: one that is
/// dropped leaves it to the others, or to the next.
pub trait TokenSource: Send + Sync + 'static {
    /// A new token.
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<Token, BoxError>> + Send>>;
}

impl<F, Fut, E> TokenSource for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token, E>> + Send + 'static,
    E: Into<BoxError>,
{
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<Token, BoxError>> + Send>> {
        let token = self();
        Box::pin(async move { token.await.map_err(Into::into) })
    }
}

/// One refresh, which all calls share.
pub(super) type Refresh = Shared<Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>>;

/// Why a refresh failed, for all who waited.
#[derive(Clone, Debug)]
pub(super) struct Failure(Arc<BoxError>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no token could be had")
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&**self.0)
    }
}

/// The one token of a layer, and its refresh.
pub(super) struct Cache {
    source: Arc<dyn TokenSource>,
    margin: Duration,
    backoff: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// Counts the tokens there were.
    number: u64,
    /// When the last one came.
    came: Option<Instant>,
    /// When the token is refreshed ahead of its end.
    refresh_at: Option<Instant>,
    /// The one that is under way, and when it was begun.
    refresh: Option<(Refresh, Instant)>,
    /// Counts the refreshes there were: the last is the one under way.
    refreshes: u64,
    /// Which of them the token is of.
    token_of: u64,
    /// The last failure, and until when nobody asks again.
    failed: Option<(Failure, Instant)>,
}

/// What a call is to do.
pub(super) enum Shown {
    /// Show this token; drive that refresh meanwhile.
    Now(HeaderValue, u64, Option<Refresh>),
    /// Wait for this.
    Wait(Refresh),
    Refused(Refused),
}

impl Cache {
    pub(super) fn new(source: impl TokenSource, margin: Duration, backoff: Duration) -> Self {
        Self {
            source: Arc::new(source),
            margin,
            backoff,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn show(self: &Arc<Self>) -> Shown {
        let now = Instant::now();
        let mut state = self.lock();
        let good = state
            .token
            .as_ref()
            .filter(|token| token.expires.is_none_or(|expires| now < expires));
        let Some(header) = good.map(|token| token.header.clone()) else {
            return match self.refresh(&mut state, now) {
                Ok(refresh) => Shown::Wait(refresh),
                Err(refused) => Shown::Refused(refused),
            };
        };
        let due = state.refresh_at.is_some_and(|at| at <= now);
        // One that fails ahead of time leaves the token that is still good.
        let refresh = if due {
            self.refresh(&mut state, now).ok()
        } else {
            None
        };
        Shown::Now(header, state.number, refresh)
    }

    /// What a call that waited for a refresh shows, or why there is nothing.
    pub(super) fn after(&self, result: Result<(), Failure>) -> Result<(HeaderValue, u64), Refused> {
        result.map_err(|failure| self.failed(failure, self.backoff))?;
        let state = self.lock();
        match &state.token {
            Some(token) => Ok((token.header.clone(), state.number)),
            None => Err(Refused::new(Reason::CredentialsFailed)),
        }
    }

    fn failed(&self, failure: Failure, wait: Duration) -> Refused {
        Refused::new(Reason::CredentialsFailed)
            .retry_after(wait)
            .caused_by(failure)
    }

    /// The refresh that is under way, or a new one.
    fn refresh(self: &Arc<Self>, state: &mut State, now: Instant) -> Result<Refresh, Refused> {
        // One that nobody has polled for so long may be dead: its connection has gone meanwhile.
        if let Some((refresh, begun)) = &state.refresh
            && now.saturating_duration_since(*begun) < LONGEST
        {
            return Ok(refresh.clone());
        }
        if let Some((failure, until)) = &state.failed
            && now < *until
        {
            return Err(self.failed(failure.clone(), *until - now));
        }
        state.refreshes += 1;
        let id = state.refreshes;
        let (source, cache) = (Arc::clone(&self.source), Arc::downgrade(self));
        let refresh: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
            // Begun where it is first polled, outside of the lock; a panic is one failure, not all
            // that come.
            let asked = AssertUnwindSafe(async move { source.token().await });
            let result = match timeout(LONGEST, asked.catch_unwind()).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err("the source of tokens panicked".into()),
                Err(_) => Err("the source of tokens gave none within 30 s".into()),
            };
            let result = result.map_err(|error| Failure(Arc::new(error)));
            let Some(cache) = cache.upgrade() else {
                return result.map(drop);
            };
            cache.end(id, result)
        });
        let refresh = refresh.shared();
        state.refresh = Some((refresh.clone(), now));
        Ok(refresh)
    }

    /// Takes in what refresh `id` came to. One that was given up may end after others: it ends none of them.
    fn end(&self, id: u64, result: Result<Token, Failure>) -> Result<(), Failure> {
        let now = Instant::now();
        let mut state = self.lock();
        let is_last = state.refreshes == id;
        if is_last {
            state.refresh = None;
        }
        match result {
            Ok(_) if state.token.is_some() && state.token_of > id => Ok(()),
            Ok(token) => {
                state.token_of = id;
                state.refresh_at = token.expires.map(|expires| {
                    // A token that lives shorter than the margin is used for half its life.
                    let left = expires.saturating_duration_since(now);
                    expires - self.margin.min(left / 2)
                });
                state.token = Some(token);
                state.number += 1;
                state.came = Some(now);
                state.failed = None;
                Ok(())
            }
            Err(failure) => {
                if is_last {
                    state.failed = Some((failure.clone(), now + self.backoff));
                }
                Err(failure)
            }
        }
    }

    /// Token `number` was not good. It is given up once: another has come since, or it is gone already.
    ///
    /// One that has just come is kept. Where each is turned away, the source would be asked by every call.
    pub(super) fn invalidate(&self, number: u64) {
        let mut state = self.lock();
        let is_new = state.came.is_some_and(|came| came.elapsed() < self.backoff);
        if state.number == number && !is_new {
            state.token = None;
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("margin", &self.margin)
            .field("backoff", &self.backoff)
            .field("token", &self.lock().token)
            .finish_non_exhaustive()
    }
}
