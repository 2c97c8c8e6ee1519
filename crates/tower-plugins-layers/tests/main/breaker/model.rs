//! The rules once more, as plainly as they can be written, and random events that both follow.

use proptest::prelude::*;

use super::*;

/// What happens to the breaker, in milliseconds and indices of calls under way.
#[derive(Clone, Debug)]
enum Event {
    Begin,
    Succeed(usize),
    Fail(usize),
    /// Fails, and asks to be left alone for so many seconds.
    FailAsking(usize, u64),
    Refuse(usize),
    Drop(usize),
    Advance(u64),
    Force(bool),
    Reset,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => Just(Event::Begin),
        6 => any::<usize>().prop_map(Event::Succeed),
        6 => any::<usize>().prop_map(Event::Fail),
        1 => (any::<usize>(), 0_u64..3).prop_map(|(n, seconds)| Event::FailAsking(n, seconds)),
        3 => any::<usize>().prop_map(Event::Refuse),
        3 => any::<usize>().prop_map(Event::Drop),
        6 => (0_u64..1200).prop_map(Event::Advance),
        1 => any::<bool>().prop_map(Event::Force),
        1 => Just(Event::Reset),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    consecutive: Option<u32>,
    rate: Option<f64>,
    slow: Option<(u64, f64)>,
    /// In place of a second.
    window_calls: Option<usize>,
    min_requests: usize,
    threshold: u16,
}

prop_compose! {
    fn rules()(
        consecutive in proptest::option::of(1_u32..5),
        rate in proptest::option::of(0.2_f64..1.0),
        slow in proptest::option::of((0_u64..1500, 0.2_f64..1.0)),
        window_calls in proptest::option::of(1_usize..12),
        min_requests in 1_usize..6,
        threshold in 1_u16..4,
    ) -> Rules {
        Rules { consecutive, rate, slow, window_calls, min_requests, threshold }
    }
}

impl Rules {
    const WINDOW: u64 = 1000;
    const RECOVERY: u64 = 400;
    const MAX_RECOVERY: u64 = 1500;

    fn policy(&self) -> BreakerPolicy {
        let policy = BreakerPolicy::new()
            .consecutive_failures(self.consecutive)
            .failure_rate(self.rate)
            .window(Duration::from_millis(Self::WINDOW))
            .min_requests(self.min_requests as u32)
            .recovery(Duration::from_millis(Self::RECOVERY))
            .max_recovery(Duration::from_millis(Self::MAX_RECOVERY))
            .jitter(0.0)
            .success_threshold(self.threshold);
        let policy = match self.slow {
            Some((time, rate)) => policy
                .slow_call(Duration::from_millis(time))
                .slow_rate(rate),
            None => policy,
        };
        match self.window_calls {
            Some(calls) => policy.window_calls(calls as u32),
            None => policy,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    at: u64,
    failed: bool,
    slow: bool,
}

struct Model {
    rules: Rules,
    now: u64,
    state: BreakerState,
    forced: bool,
    changes: u32,
    row: u32,
    ended: Vec<Ended>,
    since: u64,
    asked: u64,
    trips: u32,
    out: u16,
    ok: u16,
    reasons: Vec<Option<Reason>>,
}

impl Model {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            now: 0,
            state: BreakerState::Closed,
            forced: false,
            changes: 0,
            row: 0,
            ended: Vec::new(),
            since: 0,
            asked: 0,
            trips: 0,
            out: 0,
            ok: 0,
            reasons: Vec::new(),
        }
    }

    fn open_time(&self) -> u64 {
        (Rules::RECOVERY << (self.trips - 1).min(20)).min(Rules::MAX_RECOVERY)
    }

    fn change(&mut self, state: BreakerState, reason: Option<Reason>) {
        self.state = state;
        self.forced = false;
        self.changes += 1;
        self.since = self.now;
        (self.out, self.ok, self.row) = (0, 0, 0);
        self.ended.clear();
        self.reasons.push(reason);
    }

    fn available(&self) -> bool {
        if self.forced {
            return self.state == BreakerState::Closed;
        }
        let waited = self.now - self.since;
        match self.state {
            BreakerState::Closed => true,
            BreakerState::Open => waited >= self.open_time() && self.now >= self.asked,
            BreakerState::HalfOpen => {
                self.out + self.ok < self.rules.threshold || waited >= self.open_time()
            }
        }
    }

    fn begin(&mut self) -> bool {
        if !self.available() {
            return false;
        }
        match self.state {
            BreakerState::Closed => return true,
            BreakerState::Open => self.change(BreakerState::HalfOpen, None),
            BreakerState::HalfOpen if self.out + self.ok < self.rules.threshold => {}
            BreakerState::HalfOpen => (self.out, self.since) = (0, self.now),
        }
        self.out += 1;
        true
    }

    /// `failed` is `None` for what says nothing.
    fn end(&mut self, call: &Begun, failed: Option<bool>, asked: Option<u64>) {
        if call.change != self.changes || self.forced {
            return;
        }
        self.out = self.out.saturating_sub(1);
        let Some(failed) = failed else { return };
        let took = self.now - call.at;
        let slow = self.rules.slow.is_some_and(|(most, _)| took > most);
        if let Some(asked) = asked {
            self.asked = self.asked.max(self.now + asked * 1000);
        }
        match self.state {
            BreakerState::Open => {}
            BreakerState::HalfOpen if failed || slow => {
                self.trips += 1;
                self.change(BreakerState::Open, Some(Reason::ProbeFailed));
            }
            BreakerState::HalfOpen => {
                self.ok += 1;
                if self.ok >= self.rules.threshold {
                    self.trips = 0;
                    self.change(BreakerState::Closed, None);
                }
            }
            BreakerState::Closed => {
                self.row = if failed { self.row + 1 } else { 0 };
                let at = self.now;
                self.ended.push(Ended { at, failed, slow });
                if let Some(reason) = self.opens(failed, slow) {
                    self.trips = 1;
                    self.change(BreakerState::Open, Some(reason));
                }
            }
        }
    }

    fn opens(&self, failed: bool, slow: bool) -> Option<Reason> {
        if failed && self.rules.consecutive.is_some_and(|n| self.row >= n) {
            return Some(Reason::ConsecutiveFailures);
        }
        let counted: Vec<_> = match self.rules.window_calls {
            Some(calls) => self.ended.iter().rev().take(calls).collect(),
            None => {
                let bucket = Rules::WINDOW / 10;
                let recent = |ended: &&Ended| ended.at / bucket + 10 > self.now / bucket;
                self.ended.iter().filter(recent).collect()
            }
        };
        let least = self
            .rules
            .window_calls
            .unwrap_or(usize::MAX)
            .min(self.rules.min_requests);
        if counted.len() < least {
            return None;
        }
        let reaches = |part: usize, rate: f64| part as f64 >= rate * counted.len() as f64;
        let failures = counted.iter().filter(|ended| ended.failed).count();
        if failed && self.rules.rate.is_some_and(|rate| reaches(failures, rate)) {
            return Some(Reason::FailureRate);
        }
        let slows = counted.iter().filter(|ended| ended.slow).count();
        let too_slow = slow
            && self
                .rules
                .slow
                .is_some_and(|(_, rate)| reaches(slows, rate));
        too_slow.then_some(Reason::SlowCalls)
    }

    fn force(&mut self, open: bool) {
        let state = if open {
            BreakerState::Open
        } else {
            BreakerState::Closed
        };
        if self.forced && self.state == state {
            self.since = self.now;
            return;
        }
        self.change(state, Some(Reason::Forced));
        self.forced = true;
    }

    fn reset(&mut self) {
        self.asked = 0;
        self.ended.clear();
        let is_new = !self.forced && self.state == BreakerState::Closed && self.row == 0;
        if !is_new {
            self.trips = 0;
            self.change(BreakerState::Closed, Some(Reason::Forced));
        }
    }
}

/// When a call began, and after which change of state.
struct Begun {
    change: u32,
    at: u64,
}

async fn follow(rules: Rules, events: Vec<Event>) -> Result<(), TestCaseError> {
    let layer = BreakerLayer::new(rules.policy());
    let breaker = layer.handle();
    let mut told = breaker.subscribe().expect("it is on");
    let mut model = Model::new(rules);
    let mut calls: Vec<(Call, Begun)> = Vec::new();
    for event in events {
        match event {
            Event::Advance(time) => {
                advance(Duration::from_millis(time)).await;
                model.now += time;
            }
            Event::Begin => {
                let call = begin(&layer);
                prop_assert_eq!(call.is_ok(), model.begin());
                let (change, at) = (model.changes, model.now);
                calls.extend(call.ok().map(|call| (call, Begun { change, at })));
            }
            Event::Force(true) => (breaker.force_open(), model.force(true)).1,
            Event::Force(false) => (breaker.force_closed(), model.force(false)).1,
            Event::Reset => (breaker.reset(), model.reset()).1,
            Event::Succeed(n)
            | Event::Fail(n)
            | Event::FailAsking(n, _)
            | Event::Refuse(n)
            | Event::Drop(n) => {
                if calls.is_empty() {
                    continue;
                }
                let (call, begun) = calls.swap_remove(n % calls.len());
                let (reply, failed, asked) = match event {
                    Event::Succeed(_) => (Some(ok()), Some(false), None),
                    Event::Fail(_) => (Some(unavailable()), Some(true), None),
                    Event::FailAsking(_, seconds) => {
                        (Some(asking(seconds)), Some(true), Some(seconds))
                    }
                    Event::Refuse(_) => {
                        let refused = Refused::new(Reason::RateLimited);
                        (Some(Err(refused.into())), None, None)
                    }
                    _ => (None, None, None),
                };
                match reply {
                    Some(reply) => drop(call.end(reply)),
                    None => drop(call),
                }
                model.end(&begun, failed, asked);
            }
        }
        prop_assert_eq!(breaker.state(), model.state);
        prop_assert_eq!(breaker.changes(), model.changes);
        prop_assert_eq!(breaker.is_available(Instant::now()), model.available());
        let snapshot = breaker.snapshot(Instant::now()).expect("it is on");
        prop_assert_eq!(snapshot.forced, model.forced);
        prop_assert_eq!(snapshot.failures_in_a_row, model.row);
        prop_assert_eq!(
            snapshot.probes,
            model.out * u16::from(model.state == BreakerState::HalfOpen)
        );
        // Each change is told once, with its reason.
        for reason in model.reasons.drain(..) {
            prop_assert_eq!(told.try_recv().expect("a change").reason, reason);
        }
        prop_assert!(told.try_recv().is_err());
    }
    // However it got here, it is not wedged, unless by hand.
    breaker.reset();
    prop_assert!(begin(&layer).is_ok());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn it_follows_the_rules_whatever_happens(
        rules in rules(),
        events in proptest::collection::vec(event(), 0..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(follow(rules, events))?;
    }
}
