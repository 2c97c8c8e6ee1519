//! What is known of an endpoint, and what a check changes in it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tower_plugins_layers::Reason;
use tower_plugins_layers::balance::HealthHandle;

use super::report::{EndpointHealth, HealthStatus};
use crate::config::{Address, HealthSpec};

/// What came of a check.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is well.
    Pass,
    /// It is not.
    Fail(Failure),
    /// The endpoint says itself, whatever the thresholds, that it is well or not.
    Says(Result<(), Failure>),
    /// It could not be asked, by no fault of its own.
    Nothing,
}

/// Why a check failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// `None` where there is no word for it.
    pub(super) reason: Option<Reason>,
    pub(super) message: String,
    /// The gRPC code, if there was one.
    pub(super) code: Option<u8>,
}

impl Failure {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason: Some(reason),
            message: message.into(),
            code: None,
        }
    }

    const fn status(&self) -> HealthStatus {
        match self.reason {
            Some(Reason::ConnectFailed) => HealthStatus::Offline,
            _ => HealthStatus::Unhealthy,
        }
    }
}

/// What is known of an endpoint, for all who ask it and for the balancer.
#[derive(Debug)]
pub(super) struct State {
    address: Address,
    known: Mutex<Known>,
    handle: HealthHandle,
}

#[derive(Clone, Debug)]
struct Known {
    /// When the last check began or ended; before the first, when it could have.
    touched: Instant,
    is_asked: bool,
    status: HealthStatus,
    failures: u32,
    successes: u32,
    last: Option<Last>,
    message: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    at: SystemTime,
    took: Duration,
}

/// From what to what a check has changed an endpoint.
pub(super) struct Changed {
    pub(super) from: HealthStatus,
    pub(super) to: HealthStatus,
}

impl State {
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            known: Mutex::new(Known {
                touched: Instant::now(),
                is_asked: false,
                status: HealthStatus::Unknown,
                failures: 0,
                successes: 0,
                last: None,
                message: None,
            }),
            handle: HealthHandle::new(),
        }
    }

    /// What is known so far, for somebody else who asks.
    pub(super) fn copy(&self) -> Self {
        let known = self.known().clone();
        let handle = HealthHandle::new();
        handle.set_healthy(!known.status.is_out());
        Self {
            address: self.address.clone(),
            known: Mutex::new(known),
            handle,
        }
    }

    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn handle(&self) -> HealthHandle {
        self.handle.clone()
    }

    /// When the last check began or ended, and whether it failed; before the first, when it could have begun.
    pub(super) fn last(&self) -> (Instant, Option<bool>) {
        let known = self.known();
        (known.touched, known.is_asked.then_some(known.failures > 0))
    }

    /// A check begins. One that is broken off is not begun again at once.
    pub(super) fn begin(&self) {
        let mut known = self.known();
        known.is_asked = true;
        known.touched = Instant::now();
    }

    /// Takes a check into account that took so long.
    pub(super) fn take(
        &self,
        verdict: &Verdict,
        took: Duration,
        spec: &HealthSpec,
    ) -> (HealthStatus, Option<Changed>) {
        let mut known = self.known();
        let from = known.status;
        known.touched = Instant::now();
        match verdict {
            Verdict::Nothing => return (from, None),
            Verdict::Pass => known.pass(took, spec, spec.healthy_threshold),
            Verdict::Says(Ok(())) => known.pass(took, spec, 1),
            Verdict::Fail(failure) => known.fail(failure, spec.failure_limit),
            Verdict::Says(Err(failure)) => known.fail(failure, 1),
        }
        known.last = Some(Last {
            at: SystemTime::now(),
            took,
        });
        let to = known.status;
        // Inside the lock: the last word is that of the last check.
        self.handle.set_healthy(!to.is_out());
        (to, (from != to).then_some(Changed { from, to }))
    }

    pub(super) fn snapshot(&self) -> EndpointHealth {
        let known = self.known();
        EndpointHealth {
            status: known.status,
            last_check: known.last.map(|last| last.at),
            response_time: known.last.map(|last| last.took),
            failures: known.failures,
            message: known.message.clone(),
            ..EndpointHealth::unknown(self.address.clone())
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn pass(&mut self, took: Duration, spec: &HealthSpec, threshold: u32) {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        if self.status.is_out() && self.successes < threshold {
            return;
        }
        let slow = spec.degraded_after.filter(|limit| took > *limit);
        (self.status, self.message) = match slow {
            Some(limit) => (
                HealthStatus::Degraded,
                Some(format!("it took {took:.0?}, more than {limit:?}")),
            ),
            None => (HealthStatus::Healthy, None),
        };
    }

    fn fail(&mut self, failure: &Failure, limit: u32) {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        let speaks_for_it = !self.status.is_out() && self.status != HealthStatus::Unknown;
        self.status = if speaks_for_it && self.failures < limit {
            HealthStatus::Degraded
        } else {
            failure.status()
        };
        self.message = Some(failure.message.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::HealthStatus::{Degraded, Healthy, Offline, Unhealthy};
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);

    fn spec() -> HealthSpec {
        HealthSpec {
            failure_limit: 3,
            healthy_threshold: 2,
            degraded_after: Some(Duration::from_millis(100)),
            ..HealthSpec::default()
        }
    }

    fn state() -> State {
        State::new(Address::in_process("s").unwrap())
    }

    fn fail(reason: Reason) -> Verdict {
        Verdict::Fail(Failure::new(reason, "no"))
    }

    /// What the endpoint is after each check.
    fn course(state: &State, checks: &[Verdict]) -> Vec<HealthStatus> {
        let take = |verdict| state.take(verdict, QUICK, &spec()).0;
        checks.iter().map(take).collect()
    }

    #[test]
    fn the_first_check_decides_and_then_it_takes_as_many_as_the_limits_say() {
        let state = state();
        let (pass, no) = (|| Verdict::Pass, || fail(Reason::Status));
        let checks = [pass(), no(), no(), pass(), no(), no(), no(), no()];
        let course_of_it = course(&state, &checks);
        assert_eq!(
            course_of_it,
            [
                Healthy, Degraded, Degraded, Healthy, Degraded, Degraded, Unhealthy, Unhealthy
            ]
        );
        assert!(!state.handle().is_healthy());
        let checks = [pass(), no(), pass(), pass()];
        assert_eq!(
            course(&state, &checks),
            [Unhealthy, Unhealthy, Unhealthy, Healthy]
        );
        assert!(state.handle().is_healthy());
        assert_eq!(course(&self::state(), &[no()]), [Unhealthy]);
    }

    #[test]
    fn who_cannot_be_reached_is_offline() {
        let state = state();
        let checks = [fail(Reason::ConnectFailed), fail(Reason::AttemptTimeout)];
        assert_eq!(course(&state, &checks), [Offline, Unhealthy]);
    }

    #[test]
    fn what_an_endpoint_says_of_itself_counts_at_once() {
        let no = || Verdict::Says(Err(Failure::new(Reason::Status, "no")));
        let checks = [Verdict::Pass, no(), Verdict::Says(Ok(()))];
        assert_eq!(course(&state(), &checks), [Healthy, Unhealthy, Healthy]);
    }

    #[test]
    fn a_check_that_could_not_be_made_changes_nothing() {
        let state = state();
        let checks = [Verdict::Pass, Verdict::Nothing];
        assert_eq!(course(&state, &checks), [Healthy, Healthy]);
    }

    #[test]
    fn who_is_slow_is_degraded_and_in() {
        let state = state();
        let (status, _) = state.take(&Verdict::Pass, Duration::from_secs(1), &spec());
        assert_eq!(status, Degraded);
        assert!(state.handle().is_healthy());
        let message = state.snapshot().message.unwrap();
        assert_eq!(message, "it took 1s, more than 100ms");
        let (status, _) = state.take(&Verdict::Pass, QUICK, &spec());
        assert_eq!((status, state.snapshot().message), (Healthy, None));
    }
}
