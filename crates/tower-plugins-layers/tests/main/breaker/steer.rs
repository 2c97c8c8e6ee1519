//! Circuits that are watched and steered by hand.

use super::*;

fn snapshot(layer: &BreakerLayer) -> tower_plugins_layers::breaker::BreakerSnapshot {
    layer.handle().snapshot(Instant::now()).expect("it is on")
}

#[tokio::test(start_paused = true)]
async fn one_that_is_forced_open_refuses_until_it_is_reset() {
    let layer = BreakerLayer::new(brittle());
    let under_way = begin(&layer).expect("let in");
    layer.handle().force_open();
    advance(Duration::from_secs(3600)).await;
    assert_eq!(reason(begin(&layer)), Some(Reason::BreakerOpen));
    assert!(!layer.handle().is_available(Instant::now()));
    // What was under way goes on, and says nothing.
    assert!(under_way.end(ok()).is_ok());
    assert_eq!(layer.handle().state(), BreakerState::Open);
    layer.handle().reset();
    succeed(&layer);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_forced_closed_lets_all_through_and_counts_nothing() {
    let layer = BreakerLayer::new(brittle());
    fail(&layer);
    assert_eq!(layer.handle().state(), BreakerState::Open);
    layer.handle().force_closed();
    for _ in 0..100 {
        fail(&layer);
    }
    assert_eq!(layer.handle().state(), BreakerState::Closed);
    layer.handle().reset();
    assert_eq!(snapshot(&layer).failures_in_a_row, 0);
    fail(&layer);
    assert_eq!(layer.handle().state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_reset_forgets_failures_open_times_and_what_was_asked_for() {
    let policy = brittle()
        .consecutive_failures(3)
        .failure_rate(0.9)
        .max_recovery(Duration::from_secs(60));
    let layer = BreakerLayer::new(policy);
    fail(&layer);
    fail(&layer);
    layer.handle().reset();
    fail(&layer);
    fail(&layer);
    assert_eq!(layer.handle().state(), BreakerState::Closed);
    drop(begin(&layer).expect("let in").end(asking(300)));
    assert_eq!(layer.handle().state(), BreakerState::Open);
    layer.handle().reset();
    let now = snapshot(&layer);
    assert_eq!(
        (now.state, now.calls, now.opened_in_a_row),
        (BreakerState::Closed, 0, 0)
    );
    for _ in 0..3 {
        fail(&layer);
    }
    assert_eq!(snapshot(&layer).retry_after, Some(Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_says_what_is_known() {
    let layer = BreakerLayer::new(
        brittle()
            .consecutive_failures(3)
            .failure_rate(0.9)
            .slow_call(Duration::from_millis(50)),
    );
    succeed(&layer);
    fail(&layer);
    let slow = begin(&layer).expect("let in");
    advance(Duration::from_millis(51)).await;
    drop(slow.end(unavailable()));
    let now = snapshot(&layer);
    assert_eq!(
        (now.state, now.forced, now.changes),
        (BreakerState::Closed, false, 0)
    );
    assert_eq!((now.calls, now.failures, now.slow), (3, 2, 1));
    assert_eq!((now.failures_in_a_row, now.retry_after), (2, None));
    fail(&layer);
    advance(Duration::from_millis(300)).await;
    let now = snapshot(&layer);
    assert_eq!((now.state, now.opened_in_a_row), (BreakerState::Open, 1));
    assert_eq!(
        (now.lasted, now.retry_after),
        (Duration::from_millis(300), Some(Duration::from_millis(700)))
    );
    advance(Duration::from_millis(700)).await;
    let _probe = begin(&layer).expect("a probe");
    assert_eq!(
        (snapshot(&layer).state, snapshot(&layer).probes),
        (BreakerState::HalfOpen, 1)
    );
    assert!(
        BreakerLayer::off()
            .handle()
            .snapshot(Instant::now())
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn each_change_is_told_with_its_reason() {
    let layer = BreakerLayer::new(brittle().success_threshold(1));
    let mut changes = layer.handle().subscribe().expect("it is on");
    let mut next = || {
        let change = changes.try_recv().expect("a change");
        (change.from, change.to, change.reason, change.change)
    };
    use BreakerState::{Closed, HalfOpen, Open};
    fail(&layer);
    assert_eq!(next(), (Closed, Open, Some(Reason::ConsecutiveFailures), 1));
    advance(Duration::from_secs(1)).await;
    fail(&layer);
    assert_eq!(next(), (Open, HalfOpen, None, 2));
    assert_eq!(next(), (HalfOpen, Open, Some(Reason::ProbeFailed), 3));
    advance(Duration::from_secs(1)).await;
    succeed(&layer);
    assert_eq!(next(), (Open, HalfOpen, None, 4));
    assert_eq!(next(), (HalfOpen, Closed, None, 5));
    layer.handle().force_open();
    assert_eq!(next(), (Closed, Open, Some(Reason::Forced), 6));
    layer.handle().reset();
    assert_eq!(next(), (Open, Closed, Some(Reason::Forced), 7));
}

#[test]
fn the_gauge_of_the_state_follows_it() {
    let recorder = metrics_util::debugging::DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let gauge = || {
        let snapshot = seen.snapshot().into_vec();
        let [(key, _, _, metrics_util::debugging::DebugValue::Gauge(value))] = &snapshot[..] else {
            panic!("one gauge: {snapshot:?}");
        };
        let labels: Vec<_> = key.key().labels().map(|l| (l.key(), l.value())).collect();
        assert_eq!(key.key().name(), "plugin_circuit_breaker_state");
        assert_eq!(
            labels,
            [("plugin_name", "search"), ("endpoint", "http://one")]
        );
        value.into_inner()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let layer = BreakerLayer::new(brittle()).name("search", "http://one");
            assert_eq!(gauge(), 0.0);
            fail(&layer);
            assert_eq!(gauge(), 1.0);
            advance(Duration::from_secs(1)).await;
            succeed(&layer);
            assert_eq!(gauge(), 2.0);
        });
    });
}
