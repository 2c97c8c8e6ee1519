use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
/// After three errors in a row it is not asked for a second, so that an outage is not each call's delay: calls are
/// treated as [`OnError`] has it, at once. Then one call asks again, and the others go on without until it has an
/// answer.
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

    fn of(self, error: BoxError) -> Result<Standing, Refused> {
        #[cfg(feature = "metrics")]
        metrics::counter!("rate_limit_errors_total", "on_error" => self.as_str()).increment(1);
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

    /// Asks, unless the limiter failed a moment ago.
    fn take(&self, key: &[u8], n: u32) -> Option<Taking> {
        let asks = self.outage.asks();
        asks.then(|| self.limiter.take(key, n))
    }
}

/// What is known of a limiter that cannot be asked. It is told of, and not of each failure: while the limiter is
/// down, every call meets one.
#[derive(Debug, Default)]
struct Outage(Mutex<Failures>);

#[derive(Debug, Default)]
struct Failures {
    in_a_row: u32,
    /// While there were too many: when one call asks again.
    ask_at: Option<Instant>,
    #[cfg(feature = "tracing")]
    told: Option<Instant>,
    #[cfg(feature = "tracing")]
    untold: u64,
}

impl Outage {
    /// Failures in a row after which the limiter is not asked for a while. One alone may be a slow answer.
    const TOO_MANY: u32 = 3;
    const PAUSE: Duration = Duration::from_secs(1);
    #[cfg(feature = "tracing")]
    const INTERVAL: Duration = Duration::from_secs(10);

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call is to ask.
    fn asks(&self) -> bool {
        let mut failures = self.failures();
        let Some(at) = failures.ask_at else {
            return true;
        };
        let now = Instant::now();
        let asks = now >= at;
        if asks {
            // The others go on without, until this one has an answer.
            failures.ask_at = Some(now + Self::PAUSE);
        } else {
            #[cfg(feature = "tracing")]
            {
                failures.untold += 1;
            }
        }
        asks
    }

    fn answered(&self) {
        let mut failures = self.failures();
        (failures.in_a_row, failures.ask_at) = (0, None);
    }

    #[cfg_attr(not(feature = "tracing"), expect(unused_variables))]
    fn failed(&self, error: &BoxError, on_error: OnError) {
        let now = Instant::now();
        let mut failures = self.failures();
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        if failures.in_a_row >= Self::TOO_MANY {
            failures.ask_at = Some(now + Self::PAUSE);
        }
        #[cfg(feature = "tracing")]
        {
            let told = failures.told;
            if told.is_some_and(|at| now.saturating_duration_since(at) < Self::INTERVAL) {
                failures.untold += 1;
                return;
            }
            failures.told = Some(now);
            let untold = std::mem::take(&mut failures.untold);
            drop(failures);
            tracing::warn!(
                error = %error,
                on_error = on_error.as_str(),
                untold,
                "rate limiter failed"
            );
        }
    }
}

/// Asks until a token is there, or until none can come within the time that may be waited.
pub(super) fn ask(
    shared: &Arc<Shared>,
    on_error: OnError,
    key: &[u8],
    n: u32,
    terms: Terms,
) -> Wait<Standing> {
    let first = shared.take(key, n);
    let shared = Arc::clone(shared);
    let again = (!terms.max_wait.is_zero()).then(|| Box::<[u8]>::from(key));
    Box::pin(async move {
        let since = Instant::now();
        let mut taking = first;
        loop {
            let Some(taken) = taking else {
                return on_error
                    .of("the limiter has just failed, and is not asked for a second".into());
            };
            let decision = match taken.await {
                Ok(decision) => decision,
                Err(error) => {
                    shared.outage.failed(&error, on_error);
                    return on_error.of(error);
                }
            };
            shared.outage.answered();
            let Err(wait) = decision.taken else {
                return Ok(Standing(terms.headers.then_some(decision.quota)));
            };
            match &again {
                Some(key) if since.elapsed().saturating_add(wait) <= terms.max_wait => {
                    // At the least a moment, should the limiter say that it is none.
                    sleep(wait.max(Duration::from_millis(1))).await;
                    taking = shared.take(key, n);
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
