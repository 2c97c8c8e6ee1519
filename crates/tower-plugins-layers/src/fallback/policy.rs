use std::error::Error as StdError;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::Reason;

static X_FALLBACK: HeaderName = HeaderName::from_static("x-fallback");

/// In the extensions of a response that a fallback gave: why there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FallbackUsed(pub Reason);

/// When there is a fallback, and how it is marked.
///
/// Unless told otherwise there is one for what says that the service cannot answer now: `breaker_open`,
/// `no_endpoint`, `connect_failed`, `connection_lost`, `pool_exhausted`, `attempt_timeout`, `deadline_exceeded`,
/// `concurrency_limited`, `shed` and `panicked`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(try_from = "super::text::Raw", into = "super::text::Raw")
)]
pub struct FallbackPolicy {
    on: u64,
    pub(super) on_statuses: Vec<StatusCode>,
    pub(super) on_any_error: bool,
    pub(super) header: Option<HeaderName>,
    pub(super) timeout: Duration,
}

const _: () = assert!(Reason::ALL.len() <= 64);

const fn bit(reason: Reason) -> u64 {
    1 << reason as u32
}

impl FallbackPolicy {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        let policy = Self {
            on: 0,
            on_statuses: Vec::new(),
            on_any_error: false,
            header: Some(X_FALLBACK.clone()),
            timeout: Duration::from_secs(1),
        };
        policy.on([
            Reason::BreakerOpen,
            Reason::NoEndpoint,
            Reason::RetryBudget,
            Reason::ConnectFailed,
            Reason::ConnectionLost,
            Reason::PoolExhausted,
            Reason::AttemptTimeout,
            Reason::DeadlineExceeded,
            Reason::ConcurrencyLimited,
            Reason::Shed,
            Reason::Panicked,
        ])
    }

    /// The reasons for a fallback, in the place of the defaults. [`Reason::RequestBroken`] never is one:
    /// nobody is left to have the answer.
    #[must_use]
    pub fn on(mut self, reasons: impl IntoIterator<Item = Reason>) -> Self {
        let chosen = reasons.into_iter().fold(0, |all, reason| all | bit(reason));
        self.on = chosen & !bit(Reason::RequestBroken);
        self
    }

    /// The statuses that call for one, where the response's head has come.
    #[must_use]
    pub fn on_statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.on_statuses = statuses.into_iter().collect();
        self
    }

    /// Whether an error that has no [`Reason`] calls for one; it is marked `status`.
    #[must_use]
    pub const fn on_any_error(mut self, any: bool) -> Self {
        self.on_any_error = any;
        self
    }

    /// The response header that has the reason.
    #[must_use]
    pub fn header(mut self, name: Option<HeaderName>) -> Self {
        self.header = name;
        self
    }

    /// How long the other service has to its response's head.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The reasons that are chosen.
    #[cfg(feature = "serde")]
    pub(super) fn reasons(&self) -> impl Iterator<Item = Reason> {
        Reason::ALL
            .into_iter()
            .filter(|reason| self.on & bit(*reason) != 0)
    }

    pub(super) fn judge_error(&self, error: &(dyn StdError + 'static)) -> Option<Reason> {
        match Reason::of(error) {
            Some(reason) => (self.on & bit(reason) != 0).then_some(reason),
            None => self.on_any_error.then_some(Reason::Status),
        }
    }

    pub(super) fn judge_status(&self, status: StatusCode) -> Option<Reason> {
        self.on_statuses.contains(&status).then_some(Reason::Status)
    }
}

impl Default for FallbackPolicy {
    fn default() -> Self {
        Self::new()
    }
}
