use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Quota;
use super::limiter::{Standing, Terms};
use crate::gate::Wait;
use crate::{BoxError, Reason, Refused};

/// What a limiter that others share decided of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The time after which the call has a chance, if it may not go now. [`Duration::MAX`] says that it never
    /// has one.
    pub taken: Result<(), Duration>,
    /// How the key stands after it.
    pub quota: Quota,
}

/// The future of [`SharedLimiter::take`].
pub type Taking = Pin<Box<dyn Future<Output = Result<Decision, BoxError>> + Send>>;

/// A limiter that is somewhere else, so that many processes may draw from it.
///
/// The future is dropped when the call is: what was asked by then may be taken or not.
pub trait SharedLimiter: fmt::Debug + Send + Sync + 'static {
    /// Takes `n` tokens of `key`, all or none, by the limiter's own clock.
    fn take(&self, key: &[u8], n: u32) -> Taking;
}

/// What becomes of a call when its limiter cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum OnError {
    /// It goes on, unlimited: the limiter is no part of what must work.
    #[default]
    Allow,
    /// It is refused, with [`Reason::FilterFailed`] and the limiter's error.
    Refuse,
}

impl OnError {
    /// The word, as it stands in metrics and in text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
        }
    }

    fn of(self, error: BoxError, outage: &Outage) -> Result<Standing, Refused> {
        #[cfg(feature = "metrics")]
        metrics::counter!("rate_limit_errors_total", "on_error" => self.as_str()).increment(1);
        outage.tell(&error, self);
        match self {
            Self::Allow => Ok(Standing(None)),
            Self::Refuse => Err(Refused::new(Reason::FilterFailed).caused_by(error)),
        }
    }
}

/// A limiter, and when it failed.
#[derive(Debug)]
pub(super) struct Shared {
    limiter: Arc<dyn SharedLimiter>,
    outage: Outage,
}

impl Shared {
    pub(super) fn new(limiter: Arc<dyn SharedLimiter>) -> Self {
        Self {
            limiter,
            outage: Outage::default(),
        }
    }
}

/// Tells of failures, and not of each: while the limiter is down, every call meets one.
#[derive(Debug, Default)]
struct Outage {
    #[cfg(feature = "tracing")]
    told: std::sync::Mutex<Option<Instant>>,
    #[cfg(feature = "tracing")]
    untold: std::sync::atomic::AtomicU64,
}

#[cfg(feature = "tracing")]
impl Outage {
    const INTERVAL: Duration = Duration::from_secs(10);

    fn tell(&self, error: &BoxError, on_error: OnError) {
        use std::sync::atomic::Ordering::Relaxed;
        let now = Instant::now();
        {
            let mut told = self
                .told
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if told.is_some_and(|at| now.saturating_duration_since(at) < Self::INTERVAL) {
                self.untold.fetch_add(1, Relaxed);
                return;
            }
            *told = Some(now);
        }
        tracing::warn!(
            error = %error,
            on_error = on_error.as_str(),
            untold = self.untold.swap(0, Relaxed),
            "rate limiter failed"
        );
    }
}

#[cfg(not(feature = "tracing"))]
impl Outage {
    #[expect(clippy::unused_self, reason = "there is nobody to tell")]
    const fn tell(&self, _: &BoxError, _: OnError) {}
}

/// Asks until a token is there, or until none can come within the time that may be waited.
pub(super) fn ask(
    shared: &Arc<Shared>,
    on_error: OnError,
    key: &[u8],
    n: u32,
    terms: Terms,
) -> Wait<Standing> {
    let first = shared.limiter.take(key, n);
    let shared = Arc::clone(shared);
    let again = (!terms.max_wait.is_zero()).then(|| Box::<[u8]>::from(key));
    Box::pin(async move {
        let since = Instant::now();
        let mut taking = first;
        loop {
            let decision = match taking.await {
                Ok(decision) => decision,
                Err(error) => return on_error.of(error, &shared.outage),
            };
            let Err(wait) = decision.taken else {
                return Ok(Standing(terms.headers.then_some(decision.quota)));
            };
            match &again {
                Some(key) if since.elapsed().saturating_add(wait) <= terms.max_wait => {
                    // At the least a moment, should the limiter say that it is none.
                    sleep(wait.max(Duration::from_millis(1))).await;
                    taking = shared.limiter.take(key, n);
                }
                _ => return Err(refused(decision.quota, wait)),
            }
        }
    })
}

fn refused(quota: Quota, wait: Duration) -> Refused {
    let refused = Refused::new(Reason::RateLimited).with_quota(quota);
    if wait == Duration::MAX {
        return refused;
    }
    refused.retry_after(wait)
}
