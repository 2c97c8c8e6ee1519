use http::{HeaderName, Request, StatusCode};

use super::{Backoff, Budget};
use crate::CallContext;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// When, how often and how fast a call is repeated.
///
/// # What is retried
/// - Any error of the service inside, but for refusals that another attempt would only meet again:
///   `rate_limited`, `concurrency_limited`, `draining`, `drain_cancelled`, `deadline_exceeded`,
///   `response_too_large`, `panicked`, `request_broken`; and `breaker_open` and `no_endpoint`: what picks an endpoint
///   has tried them all, and a breaker is there to fail fast. `pool_exhausted` is retried, for the
///   next endpoint may have a connection.
/// - The statuses 502, 503 and 504, or those [set](Self::statuses) instead; and 429 when it says
///   in `Retry-After` how long to wait.
/// - A gRPC response whose head says `UNAVAILABLE`.
///
/// `Retry-After` (seconds or a date, at most 300 s; anything else is ignored) and
/// `grpc-retry-pushback-ms` (at most 300 s; anything but a number from 0 up means no retry) take
/// the place of the backoff, and so does [`Refused::wait`](crate::Refused::wait).
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_layers::RetryPolicy;
/// use tower_plugins_layers::retry::{Backoff, Budget};
///
/// let policy = RetryPolicy::new()
///     .max_retries(2)
///     .backoff(Backoff::new(Duration::from_millis(20), Duration::from_millis(200)))
///     .idempotent(["/search", "pkg.Catalog/Get*"])
///     .budget(Budget::new(0.1, 5));
/// ```
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    pub(super) max_retries: u32,
    pub(super) backoff: Backoff,
    pub(super) budget: Budget,
    pub(super) max_replay: usize,
    paths: Vec<PathPattern>,
    statuses: Vec<StatusCode>,
}

impl RetryPolicy {
    /// At most three retries, with the default backoff and a default budget of its own. Clones
    /// share the budget.
    #[must_use]
    pub fn new() -> Self {
        Self {
            max_retries: 3,
            backoff: Backoff::default(),
            budget: Budget::default(),
            max_replay: 64 * 1024,
            paths: Vec::new(),
            statuses: vec![
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ],
        }
    }

    /// Attempts beyond the first; 0 switches retries off.
    #[must_use]
    pub const fn max_retries(mut self, n: u32) -> Self {
        self.max_retries = n;
        self
    }

    /// Sets the waits between attempts.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the budget, which may be shared with others.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// The bytes of a request's body that are kept for another attempt. 64 KiB by default.
    #[must_use]
    pub const fn max_replay(mut self, bytes: usize) -> Self {
        self.max_replay = bytes;
        self
    }

    /// Paths, or gRPC methods, whose calls may be repeated whatever their HTTP method. A trailing
    /// `*` matches any rest, and the leading `/` may be left out. None by default.
    #[must_use]
    pub fn idempotent<P: AsRef<str>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.paths = paths
            .into_iter()
            .map(|path| PathPattern::new(path.as_ref()))
            .collect();
        self
    }

    /// The statuses that are retried. 502, 503 and 504 by default.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses = statuses.into_iter().collect();
        self
    }

    pub(super) fn retries_status(&self, status: StatusCode) -> bool {
        self.statuses.contains(&status)
    }

    /// Whether a call with `request` may be repeated though it may have been processed.
    pub(super) fn may_repeat<B>(&self, request: &Request<B>) -> bool {
        request.method().is_idempotent()
            || CallContext::of(request).is_some_and(CallContext::is_idempotent)
            || request.headers().contains_key(IDEMPOTENCY_KEY)
            || self
                .paths
                .iter()
                .any(|path| path.matches(request.uri().path()))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Debug)]
struct PathPattern {
    text: Box<str>,
    prefix: bool,
}

impl PathPattern {
    fn new(pattern: &str) -> Self {
        let text = without_slash(pattern);
        let prefix = text.strip_suffix('*');
        Self {
            text: prefix.unwrap_or(text).into(),
            prefix: prefix.is_some(),
        }
    }

    fn matches(&self, path: &str) -> bool {
        let path = without_slash(path);
        if self.prefix {
            path.starts_with(&*self.text)
        } else {
            path == &*self.text
        }
    }
}

fn without_slash(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}
