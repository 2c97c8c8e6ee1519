//! Layers whose order matters, each with what goes wrong the other way round.

mod attempt;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_plugins_layers::authorize::Callers;
use tower_plugins_layers::balance::{
    HealthLayer, LoadLayer, Member, SlowStartLayer, SlowStartPolicy, Strategy,
};
use tower_plugins_layers::concurrency::{AdaptivePolicy, Algorithm};
use tower_plugins_layers::retry::Backoff;
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{
    AttemptTimeoutLayer, AuthorizeLayer, Balance, BoxError, Bulkhead, ConcurrencyLayer,
    DeadlineLayer, DrainHandle, DrainLayer, FallbackLayer, FallbackPolicy, FilterLayer,
    FilterPolicy, HedgeLayer, HedgePolicy, OutlierDetector, OutlierLayer, OutlierPolicy,
    RateLimitLayer, Reason, Refused, ReplayBody, RetryLayer, RetryPolicy,
};

use crate::support::{reason, request, secs, timed};

fn one_a_minute() -> RateLimitLayer {
    RateLimitLayer::new(1.0 / 60.0, 1).max_wait(secs(600))
}

fn one_at_a_time() -> ConcurrencyLayer {
    ConcurrencyLayer::with_bulkhead(Bulkhead::new(1).queue(8, secs(600)).into())
}

#[tokio::test(start_paused = true)]
async fn a_deadline_outside_a_rate_limit_bounds_the_wait_and_one_inside_does_not() {
    let outside = ServiceBuilder::new()
        .layer(DeadlineLayer::new(secs(3)))
        .layer(one_a_minute())
        .service(Probe::new(Answer::Frames));
    outside.clone().oneshot(request()).await.unwrap();
    let (result, took) = timed(outside.oneshot(request())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::DeadlineExceeded), secs(3))
    );

    let inside = ServiceBuilder::new()
        .layer(one_a_minute())
        .layer(DeadlineLayer::new(secs(3)))
        .service(Probe::new(Answer::Frames));
    inside.clone().oneshot(request()).await.unwrap();
    let (result, took) = timed(inside.oneshot(request())).await;
    result.unwrap();
    assert_eq!(took, secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_outside_a_concurrency_limit_bounds_the_wait_and_one_inside_does_not() {
    let outside = ServiceBuilder::new()
        .layer(DeadlineLayer::new(secs(3)))
        .layer(one_at_a_time())
        .service(Probe::new(Answer::Silence));
    let _held = outside.clone().oneshot(request()).await.unwrap();
    let (result, took) = timed(outside.oneshot(request())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::DeadlineExceeded), secs(3))
    );

    let inside = ServiceBuilder::new()
        .layer(one_at_a_time())
        .layer(DeadlineLayer::new(secs(3)))
        .service(Probe::new(Answer::Silence));
    let _held = inside.clone().oneshot(request()).await.unwrap();
    let (result, took) = timed(inside.oneshot(request())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::ConcurrencyLimited), secs(600))
    );
}

/// Two attempts, one after the other, whatever the first one's error.
async fn twice<S>(service: S) -> Result<S::Response, BoxError>
where
    S: tower::Service<Request<()>, Error = BoxError> + Clone,
{
    match service.clone().oneshot(request()).await {
        Ok(response) => Ok(response),
        Err(_) => service.oneshot(request()).await,
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_timeout_bounds_an_attempt_and_not_the_call() {
    let attempt = ServiceBuilder::new()
        .layer(AttemptTimeoutLayer::new(secs(2)))
        .service(Probe::new(Answer::Never));
    let retried = service_fn({
        let attempt = attempt.clone();
        move |_: Request<()>| twice(attempt.clone())
    });

    let (result, took) = timed(retried.clone().oneshot(request())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::AttemptTimeout), secs(4))
    );

    let bounded = ServiceBuilder::new()
        .layer(DeadlineLayer::new(secs(3)))
        .service(retried);
    let (result, took) = timed(bounded.oneshot(request())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::DeadlineExceeded), secs(3))
    );

    // Outside of what repeats it would be a deadline, and end the call with its first attempt.
    let outside = ServiceBuilder::new()
        .layer(AttemptTimeoutLayer::new(secs(2)))
        .service_fn(|_: Request<()>| twice(Probe::new(Answer::Never)));
    let (result, took) = timed(outside.oneshot(request())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::AttemptTimeout), secs(2))
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_outside_counts_calls_that_wait_and_one_inside_loses_them() {
    let drain = DrainHandle::new();
    let service = ServiceBuilder::new()
        .layer(DrainLayer::new(drain.clone()))
        .layer(one_a_minute())
        .service(Probe::new(Answer::Frames));
    drop(service.clone().oneshot(request()).await.unwrap());
    let waiting = tokio::spawn(service.oneshot(request()));
    tokio::task::yield_now().await;
    assert_eq!(drain.active(), 1);
    drain.close();
    waiting.await.unwrap().unwrap();

    let drain = DrainHandle::new();
    let service = ServiceBuilder::new()
        .layer(one_a_minute())
        .layer(DrainLayer::new(drain.clone()))
        .service(Probe::new(Answer::Frames));
    drop(service.clone().oneshot(request()).await.unwrap());
    let waiting = tokio::spawn(service.oneshot(request()));
    tokio::task::yield_now().await;
    assert_eq!(drain.active(), 0);
    drain.close();
    drain.drained().await;
    assert_eq!(reason(waiting.await.unwrap()), Some(Reason::Draining));
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_outside_a_concurrency_limit_counts_what_that_refuses() {
    let tokens = || RateLimitLayer::new(1.0 / 60.0, 2);
    let places = || ConcurrencyLayer::new(1);
    let outside = ServiceBuilder::new()
        .layer(tokens())
        .layer(places())
        .service(Probe::new(Answer::Silence));
    let held = outside.clone().oneshot(request()).await.unwrap();
    let refused = outside.clone().oneshot(request()).await;
    assert_eq!(reason(refused), Some(Reason::ConcurrencyLimited));
    drop(held);
    assert_eq!(
        reason(outside.oneshot(request()).await),
        Some(Reason::RateLimited)
    );

    // The other way round a call that waits for its token would hold a place meanwhile.
    let inside = ServiceBuilder::new()
        .layer(places())
        .layer(tokens().max_wait(secs(600)))
        .service(Probe::new(Answer::Frames));
    for _ in 0..2 {
        inside.clone().oneshot(request()).await.unwrap();
    }
    let waiting = tokio::spawn(inside.clone().oneshot(request()));
    tokio::task::yield_now().await;
    let refused = inside.oneshot(request()).await;
    assert_eq!(reason(refused), Some(Reason::ConcurrencyLimited));
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_balance_inside_of_retry_goes_elsewhere_and_one_outside_does_not() {
    let retry = RetryLayer::new(
        RetryPolicy::new()
            .max_retries(1)
            .backoff(Backoff::new(secs(0), secs(0))),
    );
    let load = || LoadLayer::new();
    // The first in turn cannot be reached; the second answers.
    let members = |answers| {
        service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| async move {
            if answers {
                Ok(Response::new(Full::new(Bytes::from("here"))))
            } else {
                Err(BoxError::from(Refused::new(Reason::ConnectFailed)))
            }
        })
    };
    let get = || Request::get("/").body(Full::<Bytes>::default()).unwrap();

    let ends = [false, true].map(|answers| load().layer(members(answers)));
    let inside = retry.layer(Balance::new(Strategy::RoundRobin, ends));
    inside.oneshot(get()).await.unwrap();

    // Outside, each endpoint would repeat for itself what it cannot do.
    let ends = [false, true].map(|answers| load().layer(retry.layer(members(answers))));
    let outside = Balance::new(Strategy::RoundRobin, ends);
    assert_eq!(
        reason(outside.oneshot(get()).await),
        Some(Reason::ConnectFailed)
    );
}

fn known() -> AuthorizeLayer {
    AuthorizeLayer::new(Callers::new().api_key("billing", "k3y"))
}

fn with_key() -> Request<()> {
    Request::builder()
        .header("x-api-key", "k3y")
        .body(())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_outside_of_authorize_is_used_up_by_those_who_may_not_call() {
    let tokens = || RateLimitLayer::new(1.0 / 60.0, 1);
    let inside = ServiceBuilder::new()
        .layer(known())
        .layer(tokens())
        .service(Probe::new(Answer::Frames));
    for _ in 0..3 {
        let refused = inside.clone().oneshot(request()).await;
        assert_eq!(reason(refused), Some(Reason::Unauthenticated));
    }
    inside.oneshot(with_key()).await.unwrap();

    let outside = ServiceBuilder::new()
        .layer(tokens())
        .layer(known())
        .service(Probe::new(Answer::Frames));
    let refused = outside.clone().oneshot(request()).await;
    assert_eq!(reason(refused), Some(Reason::Unauthenticated));
    let refused = outside.oneshot(with_key()).await;
    assert_eq!(reason(refused), Some(Reason::RateLimited));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_outside_sees_what_all_others_refuse_and_one_inside_does_not() {
    let fallback = || {
        let policy = FallbackPolicy::new().on([Reason::DeadlineExceeded, Reason::Unauthenticated]);
        FallbackLayer::answer(policy, http::Response::new("else".into()))
    };
    let outside = ServiceBuilder::new()
        .layer(fallback())
        .layer(known())
        .layer(DeadlineLayer::new(secs(3)))
        .service(Probe::new(Answer::Never));
    let response = outside.clone().oneshot(request()).await.unwrap();
    assert_eq!(response.headers()["x-fallback"], "unauthenticated");
    let (result, took) = timed(outside.oneshot(with_key())).await;
    assert_eq!(result.unwrap().headers()["x-fallback"], "deadline_exceeded");
    assert_eq!(took, secs(3));

    let inside = ServiceBuilder::new()
        .layer(known())
        .layer(DeadlineLayer::new(secs(3)))
        .layer(fallback())
        .service(Probe::new(Answer::Never));
    let refused = inside.clone().oneshot(request()).await;
    assert_eq!(reason(refused), Some(Reason::Unauthenticated));
    let refused = inside.oneshot(with_key()).await;
    assert_eq!(reason(refused), Some(Reason::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_outside_of_a_filter_bounds_the_question_and_one_inside_does_not() {
    let filter = || {
        let policy = FilterPolicy::new().timeout(secs(60));
        FilterLayer::new(policy, Probe::new(Answer::Never))
    };
    let outside = ServiceBuilder::new()
        .layer(DeadlineLayer::new(secs(3)))
        .layer(filter())
        .service(Probe::new(Answer::Frames));
    let (result, took) = timed(outside.oneshot(request())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::DeadlineExceeded), secs(3))
    );

    let inside = ServiceBuilder::new()
        .layer(filter())
        .layer(DeadlineLayer::new(secs(3)))
        .service(Probe::new(Answer::Frames));
    let (result, took) = timed(inside.oneshot(request())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::FilterFailed), secs(60))
    );
}

#[tokio::test(start_paused = true)]
async fn a_hedge_outside_the_attempt_timeout_outlives_a_slow_attempt_and_one_inside_does_not() {
    let request = || Request::new(http_body_util::Full::<bytes::Bytes>::default());
    let probe = Probe::new(Answer::Never);
    let journal = probe.journal();
    let outside = ServiceBuilder::new()
        .layer(HedgeLayer::new(HedgePolicy::after(secs(3))))
        .layer(AttemptTimeoutLayer::new(secs(5)))
        .service(probe);
    let (result, took) = timed(outside.oneshot(request())).await;
    // The first attempt ends at 5 s, the one that began at 3 s has its own five.
    assert_eq!(reason(result), Some(Reason::AttemptTimeout));
    assert_eq!((journal.calls(), took), (2, secs(8)));

    let inside = ServiceBuilder::new()
        .layer(AttemptTimeoutLayer::new(secs(5)))
        .layer(HedgeLayer::new(HedgePolicy::after(secs(3))))
        .service(Probe::new(Answer::Never));
    let (result, took) = timed(inside.oneshot(request())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::AttemptTimeout), secs(5))
    );
}

#[tokio::test(start_paused = true)]
async fn a_limit_outside_a_hedge_counts_a_call_once_and_one_inside_refuses_the_hedge() {
    let request = || Request::new(http_body_util::Full::<bytes::Bytes>::default());
    let calls = async |hedge_outside: bool| {
        let probe = Probe::new(Answer::Never);
        let journal = probe.journal();
        let (hedge, limit) = (
            HedgeLayer::new(HedgePolicy::after(secs(1))),
            ConcurrencyLayer::new(1),
        );
        let call = async {
            if hedge_outside {
                let service = ServiceBuilder::new().layer(hedge).layer(limit);
                drop(service.service(probe).oneshot(request()).await);
            } else {
                let service = ServiceBuilder::new().layer(limit).layer(hedge);
                drop(service.service(probe).oneshot(request()).await);
            }
        };
        assert!(tokio::time::timeout(secs(2), call).await.is_err());
        journal.calls()
    };
    assert_eq!(calls(false).await, 2);
    assert_eq!(calls(true).await, 1);
}

/// Inside retry a limit that adapts sees each attempt; outside it sees calls, slow by their backoff.
#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_inside_retry_sees_attempts_and_one_outside_does_not() {
    let policy = || AdaptivePolicy::new().algorithm(Algorithm::Aimd).initial(20);
    let (inside, outside) = (
        Arc::new(Bulkhead::adaptive(policy())),
        Arc::new(Bulkhead::adaptive(policy())),
    );
    let failing = ServiceBuilder::new()
        .layer(ConcurrencyLayer::with_bulkhead(Arc::clone(&inside)))
        .service(Probe::new(Answer::Error("broke")));
    let repeated = service_fn(move |_: Request<()>| twice(failing.clone()));
    let service = ServiceBuilder::new()
        .layer(ConcurrencyLayer::with_bulkhead(Arc::clone(&outside)))
        .service(repeated);
    service.oneshot(request()).await.unwrap_err();
    assert_eq!((inside.limit(), outside.limit()), (16, 18));
}

#[tokio::test(start_paused = true)]
async fn an_outlier_layer_inside_a_balancer_keeps_calls_from_who_fails_and_one_outside_does_not() {
    let failures = async |is_inside: bool| {
        let detector = OutlierDetector::new(OutlierPolicy::new().consecutive_failures(1));
        let endpoints = (0..3).map(|n| {
            let answer = if n == 0 {
                Answer::Error("broke")
            } else {
                Answer::Frames
            };
            let outlier = if is_inside {
                detector.endpoint(&n.to_string())
            } else {
                OutlierLayer::off()
            };
            let layers = ServiceBuilder::new().layer(outlier).layer(LoadLayer::new());
            layers.service(Probe::new(answer))
        });
        let outside = if is_inside {
            OutlierLayer::off()
        } else {
            detector.endpoint("all")
        };
        let service = outside.layer(Balance::new(Strategy::RoundRobin, endpoints));
        let mut failures = 0;
        for _ in 0..30 {
            failures += usize::from(service.clone().oneshot(request()).await.is_err());
        }
        (failures, detector.ejected())
    };
    assert_eq!(failures(true).await, (1, 1));
    // Nobody to compare with, and nobody to leave out.
    assert_eq!(failures(false).await, (10, 0));
}

#[tokio::test(start_paused = true)]
async fn slow_start_outside_an_outlier_layer_sees_an_ejection_end_and_inside_does_not() {
    let policy = SlowStartPolicy::new().window(secs(100));
    let detector = OutlierDetector::new(OutlierPolicy::new());
    let probe = || LoadLayer::new().layer(Probe::new(Answer::Frames));
    let outside = SlowStartLayer::new(policy).layer(detector.endpoint("one").layer(probe()));
    let inside = detector
        .endpoint("one")
        .layer(SlowStartLayer::new(policy).layer(probe()));
    tokio::time::advance(secs(100)).await;
    assert!(detector.eject("one"));
    let ramps = || {
        let now = Instant::now();
        // What a balancer asks at each call.
        let is_out = (outside.is_ejected(now), inside.is_ejected(now));
        (is_out, outside.ramp(now), inside.ramp(now))
    };
    assert_eq!(ramps(), ((true, true), 1.0, 1.0));
    assert!(detector.restore("one"));
    assert_eq!(ramps(), ((false, false), 0.1, 1.0));
}

#[tokio::test(start_paused = true)]
async fn slow_start_outside_a_health_layer_sees_an_endpoint_get_well_and_inside_does_not() {
    let policy = SlowStartPolicy::new().window(secs(100));
    let health = HealthLayer::new();
    let probe = || LoadLayer::new().layer(Probe::new(Answer::Frames));
    let outside = SlowStartLayer::new(policy).layer(health.layer(probe()));
    let inside = health.layer(SlowStartLayer::new(policy).layer(probe()));
    tokio::time::advance(secs(100)).await;
    let ramps = || {
        let now = Instant::now();
        let is_out = (outside.is_ejected(now), inside.is_ejected(now));
        (is_out, outside.ramp(now), inside.ramp(now))
    };
    health.handle().set_healthy(false);
    assert_eq!(ramps(), ((true, true), 1.0, 1.0));
    health.handle().set_healthy(true);
    assert_eq!(ramps(), ((false, false), 0.1, 1.0));
}
