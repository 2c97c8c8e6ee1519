//! A limiter of many processes that cannot be asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::advance;
use tower::{Layer, ServiceExt};
use tower_plugins_layers::RateLimitLayer;
use tower_plugins_layers::rate_limit::{SharedLimiter, Taking};
use tower_plugins_layers::test_util::{Answer, Probe};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Dispatch, Event, Metadata, Subscriber};

use crate::support::{request, secs};

#[derive(Debug)]
struct Down;

impl SharedLimiter for Down {
    fn take(&self, _: &[u8], _: u32) -> Taking {
        Box::pin(async { Err("it is down".into()) })
    }
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
