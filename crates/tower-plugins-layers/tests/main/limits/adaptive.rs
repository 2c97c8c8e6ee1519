use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};
use tower_plugins_layers::concurrency::{AdaptivePolicy, Algorithm};
use tower_plugins_layers::{BoxError, Bulkhead, CallContext, ConcurrencyLayer};

use crate::support::{millis, request, secs};

/// `width` calls at once, each of which takes `latency` and is answered with `status`.
async fn round(bulkhead: &Arc<Bulkhead>, width: usize, latency: Duration, status: u16) {
    let layer = ConcurrencyLayer::with_bulkhead(Arc::clone(bulkhead));
    type Answer = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, BoxError>> + Send>>;
    let service = layer.layer(service_fn(move |_: Request<()>| -> Answer {
        Box::pin(async move {
            tokio::time::sleep(latency).await;
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(response)
        })
    }));
    let calls: Vec<_> = (0..width)
        .map(|_| tokio::spawn(service.clone().oneshot(request())))
        .collect();
    for call in calls {
        let _ = call.await.unwrap();
    }
}

fn bulkhead(algorithm: Algorithm) -> Arc<Bulkhead> {
    let policy = AdaptivePolicy::new().algorithm(algorithm).min(2).max(50);
    Arc::new(Bulkhead::adaptive(policy.initial(10)))
}

#[tokio::test(start_paused = true)]
async fn it_grows_while_it_is_used_and_only_then() {
    for algorithm in [Algorithm::Aimd, Algorithm::Gradient] {
        let limit = bulkhead(algorithm);
        assert_eq!(limit.limit(), 10);
        for _ in 0..100 {
            round(&limit, 3, millis(10), 200).await;
        }
        assert_eq!(limit.limit(), 10, "{algorithm:?}");
        for _ in 0..100 {
            round(&limit, limit.limit(), millis(10), 200).await;
        }
        assert_eq!(limit.limit(), 50, "{algorithm:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drop_takes_a_tenth_and_the_lowest_limit_is_kept() {
    for algorithm in [Algorithm::Aimd, Algorithm::Gradient] {
        for status in [500, 429] {
            let limit = bulkhead(algorithm);
            round(&limit, 1, millis(1), status).await;
            assert_eq!(limit.limit(), 9, "{algorithm:?} {status}");
            for _ in 0..100 {
                round(&limit, 1, millis(1), status).await;
            }
            assert_eq!(limit.limit(), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_and_a_call_cut_by_its_deadline_are_drops_and_one_given_up_is_nothing() {
    let limit = bulkhead(Algorithm::Aimd);
    round(&limit, 1, secs(6), 200).await;
    assert_eq!(limit.limit(), 9);
    let cut = async |deadline, after| {
        let layer = ConcurrencyLayer::with_bulkhead(Arc::clone(&limit));
        let service = layer.layer(service_fn(async |_: Request<()>| {
            std::future::pending::<()>().await;
            Ok::<_, BoxError>(Response::new(String::new()))
        }));
        let mut request = request();
        let at = tokio::time::Instant::now() + deadline;
        request
            .extensions_mut()
            .insert(CallContext::new().own_deadline(at));
        let _ = tokio::time::timeout(after, service.oneshot(request)).await;
    };
    cut(secs(1), millis(500)).await;
    assert_eq!(limit.limit(), 9);
    cut(secs(1), secs(1)).await;
    assert_eq!(limit.limit(), 8);
}

#[tokio::test(start_paused = true)]
async fn the_gradient_shrinks_the_limit_while_calls_are_slower_and_lets_it_grow_after() {
    let limit = bulkhead(Algorithm::Gradient);
    for _ in 0..100 {
        round(&limit, limit.limit(), millis(10), 200).await;
    }
    assert_eq!(limit.limit(), 50);
    for _ in 0..4 {
        round(&limit, limit.limit(), millis(100), 200).await;
    }
    let low = limit.limit();
    assert!(low <= 25, "{low}");
    for _ in 0..100 {
        round(&limit, limit.limit(), millis(10), 200).await;
    }
    assert_eq!(limit.limit(), 50);
    // AIMD does not look at how long a call takes.
    let other = bulkhead(Algorithm::Aimd);
    for latency in [10, 100] {
        for _ in 0..20 {
            round(&other, other.limit(), millis(latency), 200).await;
        }
    }
    assert_eq!(other.limit(), 50);
}

#[tokio::test(start_paused = true)]
async fn the_gradient_follows_its_formula() {
    let limit = Arc::new(Bulkhead::adaptive(
        AdaptivePolicy::new().initial(20).max(1000),
    ));
    // 20 × 1 + 4, a fifth of the way, with every one of the 20 calls that end while half are under way.
    let (mut right, mut in_flight) = (20.0_f64, 20);
    while f64::from(in_flight) * 2.0 >= right {
        right = 0.8 * right + 0.2 * (right + 4.0);
        in_flight -= 1;
    }
    round(&limit, 20, millis(10), 200).await;
    assert_eq!(limit.limit(), right as usize);
    assert!(right > 25.0, "{right}");
}

proptest! {
    #[test]
    fn the_limit_keeps_to_its_bounds_whatever_comes(
        aimd in any::<bool>(),
        min in 1_usize..10,
        more in 0_usize..20,
        initial in 0_usize..50,
        backoff in 0.0_f64..1.5,
        rounds in prop::collection::vec((1_usize..12, 0_u64..7000, any::<bool>()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let algorithm = if aimd { Algorithm::Aimd } else { Algorithm::Gradient };
            let policy = AdaptivePolicy::new()
                .algorithm(algorithm)
                .initial(initial)
                .min(min)
                .max(min + more)
                .backoff(backoff);
            let limit = Arc::new(Bulkhead::adaptive(policy));
            for (width, latency, ok) in rounds {
                round(&limit, width, millis(latency), if ok { 200 } else { 503 }).await;
                let now = limit.limit();
                prop_assert!((min..=min + more).contains(&now), "{} of {}..={}", now, min, min + more);
                prop_assert_eq!(limit.in_flight(), 0);
            }
            Ok(())
        })?;
    }
}

#[test]
fn a_policy_is_read_from_text_and_nonsense_is_refused() {
    let text = r#"{"algorithm":"aimd","initial":5,"min":2,"max":9,"backoff":0.5,"tolerance":2.0,"timeout":"250ms"}"#;
    let policy: AdaptivePolicy = serde_json::from_str(text).unwrap();
    let right = AdaptivePolicy::new()
        .algorithm(Algorithm::Aimd)
        .initial(5)
        .min(2)
        .max(9)
        .backoff(0.5)
        .tolerance(2.0)
        .timeout(millis(250));
    assert_eq!(policy, right);
    assert_eq!(serde_json::to_string(&policy).unwrap(), text);
    let default: AdaptivePolicy = serde_json::from_str("{}").unwrap();
    assert_eq!(default, AdaptivePolicy::new());
    for (text, right) in [
        (r#"{"min":0}"#, "`min`"),
        (r#"{"min":30,"max":20}"#, "`min`"),
        (r#"{"initial":2000}"#, "`initial`"),
        (r#"{"backoff":1.5}"#, "`backoff`"),
        (r#"{"tolerance":0.5}"#, "`tolerance`"),
        (r#"{"timeout":"0s"}"#, "`timeout`"),
        (r#"{"backof":0.5}"#, "backof"),
        (r#"{"algorithm":"vegas"}"#, "vegas"),
    ] {
        let error = serde_json::from_str::<AdaptivePolicy>(text).unwrap_err();
        assert!(error.to_string().contains(right), "{text}: {error}");
    }
}
