//! A layer that may be left out.

use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_plugins_layers::balance::{Balance, LoadLayer, Member, Strategy};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::{
    AttemptTimeoutLayer, BoxError, BreakerLayer, ConcurrencyLayer, DeadlineLayer, Optional, Reason,
};

use crate::support::{reason, request, secs};

type Answer = Full<bytes::Bytes>;

fn answering()
-> impl Service<Request<()>, Response = Response<Answer>, Error = BoxError, Future: Send> + Clone {
    service_fn(|_| async { Ok(Response::new(Full::new("body".into()))) })
}

#[tokio::test]
async fn a_layer_that_is_there_acts_and_one_that_is_not_does_not() {
    let limit = ConcurrencyLayer::new(1);
    for (layer, expected) in [
        (Some(limit), Some(Reason::ConcurrencyLimited)),
        (None, None),
    ] {
        let service = Optional::new(layer).layer(answering());
        let first = service.clone().oneshot(request()).await.unwrap();
        let second = service.clone().oneshot(request()).await;
        assert_eq!(second.err().and_then(|error| Reason::of(&*error)), expected);
        drop(first);
        assert!(service.oneshot(request()).await.is_ok());
    }
}

#[tokio::test]
async fn a_body_past_the_layer_says_of_itself_what_it_said_before() {
    let concurrency = Optional::new(None::<ConcurrencyLayer>).layer(answering());
    let deadline = Optional::new(None::<DeadlineLayer>).layer(answering());
    let held = concurrency.oneshot(request()).await.unwrap().into_body();
    let timed = deadline.oneshot(request()).await.unwrap().into_body();
    assert_eq!(held.size_hint().exact(), Some(4));
    assert_eq!(timed.size_hint().exact(), Some(4));
    assert!(!held.is_end_stream() && !timed.is_end_stream());
    assert_eq!(held.collect().await.unwrap().to_bytes(), "body");
    assert_eq!(timed.collect().await.unwrap().to_bytes(), "body");
}

/// A call that nobody watches is as long as it likes, in its head and in its body.
#[tokio::test(start_paused = true)]
async fn no_timer_is_set_past_the_layer() {
    let slow = service_fn(|_: Request<()>| async {
        tokio::time::sleep(secs(3600)).await;
        Ok::<_, BoxError>(Response::new(String::from("late")))
    });
    let on = Optional::new(Some(AttemptTimeoutLayer::new(secs(1)))).layer(slow);
    let off = Optional::new(None::<AttemptTimeoutLayer>).layer(slow);
    assert_eq!(
        reason(on.oneshot(request()).await),
        Some(Reason::AttemptTimeout)
    );
    assert!(off.oneshot(request()).await.is_ok());
}

#[tokio::test]
async fn a_member_with_or_without_a_breaker_can_be_balanced() {
    for (breaker, available) in [
        (
            Some(BreakerPolicy::new().consecutive_failures(Some(1))),
            false,
        ),
        (None, true),
    ] {
        let failing = service_fn(|_: Request<()>| async {
            Err::<Response<Answer>, BoxError>("broken".into())
        });
        let member =
            Optional::new(breaker.map(BreakerLayer::new)).layer(LoadLayer::new().layer(failing));
        let balance = Balance::new(Strategy::PeakEwma, [member]);
        assert!(balance.is_available(Instant::now()));
        assert!(balance.clone().oneshot(request()).await.is_err());
        assert_eq!(balance.is_available(Instant::now()), available);
        assert_eq!(
            balance
                .members()
                .next()
                .unwrap()
                .retry_after(Instant::now())
                .is_some(),
            !available
        );
    }
}
