//! A limiter of many processes that cannot be asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::time::advance;
use tower::{Layer, ServiceExt};
use tower_plugins_layers::rate_limit::{Decision, OnError, Quota, SharedLimiter, Taking};
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{RateLimitLayer, Reason};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Dispatch, Event, Metadata, Subscriber};

use crate::support::{millis, request, secs, timed};

#[derive(Debug)]
struct Down;

impl SharedLimiter for Down {
    fn take(&self, _: &[u8], _: u32) -> Taking {
        Box::pin(async { Err("it is down".into()) })
    }
}

/// Does not answer, or says yes, and counts how often it is asked.
#[derive(Debug, Default)]
struct Silent {
    asked: AtomicUsize,
    answers: AtomicBool,
}

impl SharedLimiter for Silent {
    fn take(&self, _: &[u8], _: u32) -> Taking {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answers = self.answers.load(Ordering::SeqCst);
        Box::pin(async move {
            tokio::time::sleep(millis(100)).await;
            if !answers {
                return Err("it did not answer within 100 ms".into());
            }
            let quota = Quota::new(10, 9, secs(1));
            let taken = Ok(());
            Ok(Decision { taken, quota })
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_limiter_that_does_not_answer_is_not_each_calls_delay() {
    let limiter = Arc::new(Silent::default());
    let layer = RateLimitLayer::shared(limiter.clone(), None);
    let closed = layer.clone().on_error(OnError::Refuse);
    let call = async |layer: &RateLimitLayer| {
        let service = layer.layer(Probe::new(Answer::Empty));
        let (result, took) = timed(service.oneshot(request())).await;
        (result.err().and_then(|error| Reason::of(&*error)), took)
    };
    let asked = || limiter.asked.load(Ordering::SeqCst);
    // One slow answer, or two, are not an outage.
    for _ in 0..3 {
        assert_eq!(call(&layer).await, (None, millis(100)));
    }
    for _ in 0..10 {
        assert_eq!(call(&layer).await, (None, millis(0)));
        assert_eq!(call(&closed).await, (Some(Reason::FilterFailed), millis(0)));
    }
    assert_eq!(asked(), 3);

    // A second later one call asks, and others do without meanwhile.
    advance(secs(1)).await;
    let asks = call(&layer);
    let others = async {
        tokio::task::yield_now().await;
        call(&layer).await
    };
    let (asks, others) = tokio::join!(asks, others);
    assert_eq!((asks, others), ((None, millis(100)), (None, millis(0))));
    assert_eq!(asked(), 4);

    // One that leaves while it asks takes nobody's turn for long.
    advance(secs(1)).await;
    let left = tokio::time::timeout(millis(10), call(&layer)).await;
    assert!(left.is_err());
    limiter.answers.store(true, Ordering::SeqCst);
    advance(secs(1)).await;
    assert_eq!(call(&layer).await, (None, millis(100)));
    // It answers, and every call asks.
    for _ in 0..3 {
        assert_eq!(call(&closed).await, (None, millis(100)));
    }
    assert_eq!(asked(), 9);
}

/// Counts events.
#[derive(Clone, Default)]
struct Ears(Arc<AtomicUsize>);

impl Subscriber for Ears {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        if event.metadata().target().ends_with("rate_limit::shared") {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn an_outage_is_told_of_once_in_ten_seconds_and_not_by_each_call() {
    let ears = Ears::default();
    // With only one subscriber alive, a test on another thread, which has none, would switch the event
    // off for all.
    let _another = Dispatch::new(Ears::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    with_default(ears.clone(), || {
        runtime.block_on(async {
            let layer = RateLimitLayer::shared(Arc::new(Down), None);
            for told in 1..=3 {
                for _ in 0..100 {
                    let service = layer.layer(Probe::new(Answer::Empty));
                    service.oneshot(request()).await.unwrap();
                }
                assert_eq!(ears.0.load(Ordering::SeqCst), told);
                advance(secs(10)).await;
            }
        });
    });
}
