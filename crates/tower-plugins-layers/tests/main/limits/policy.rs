//! Policies of rate limits and bulkheads: what they are as text, and what is made of them.

use http::{HeaderName, Request};
use serde_json::{Value, from_value, json, to_value};
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceExt};
use tower_plugins_layers::concurrency::{AdaptivePolicy, Priority};
use tower_plugins_layers::rate_limit::WhenFull;
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{
    BoxError, CallContext, ConcurrencyLayer, ConcurrencyPolicy, RateLimitLayer, RateLimitPolicy,
    Reason,
};

use crate::support::{is_pending, millis, reason, request, secs};

fn rate(text: Value) -> Result<RateLimitPolicy, String> {
    from_value(text).map_err(|error| error.to_string())
}

fn places(text: Value) -> Result<ConcurrencyPolicy, String> {
    from_value(text).map_err(|error| error.to_string())
}

const fn name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

#[test]
fn a_rate_limit_is_read_as_it_is_written_and_what_is_absent_is_the_default() {
    assert_eq!(
        rate(json!({"per_second": 2.5})),
        Ok(RateLimitPolicy::new(2.5))
    );
    let full = json!({
        "per_second": 0.5,
        "burst": 3,
        "max_wait": "250ms",
        "key_header": "x-tenant",
        "max_keys": 7,
        "when_full": "refuse",
        "cost_header": "x-cost",
        "headers": true,
    });
    let right = RateLimitPolicy::new(0.5)
        .burst(3)
        .max_wait(millis(250))
        .key_header(name("x-tenant"))
        .max_keys(7)
        .when_full(WhenFull::Refuse)
        .cost_header(name("x-cost"))
        .headers(true);
    assert_eq!(rate(full.clone()), Ok(right.clone()));
    assert_eq!(to_value(right).unwrap(), full);
    for policy in [
        RateLimitPolicy::new(0.1),
        RateLimitPolicy::new(99.5).max_wait(secs(1)),
        // What only a limit by key has is not written without one.
        RateLimitPolicy::new(1.0).key_header(name("x")),
    ] {
        assert_eq!(rate(to_value(&policy).unwrap()), Ok(policy));
    }
}

#[test]
fn what_makes_no_sense_of_a_rate_limit_is_refused() {
    for (text, says) in [
        (json!({}), "missing field `per_second`"),
        (json!({"per_second": 0}), "more than 0"),
        (json!({"per_second": -1}), "more than 0"),
        (json!({"per_second": 1e10}), "at most a billion"),
        (json!({"per_second": 1, "burst": 0}), "at least 1"),
        (json!({"per_second": 1, "burst": -1}), "invalid value"),
        (json!({"per_second": 1, "max_wait": 100}), "a duration"),
        (
            json!({"per_second": 1, "key_header": "x", "max_keys": 0}),
            "`max_keys` must be at least 1",
        ),
        (
            json!({"per_second": 1, "max_keys": 5}),
            "without `key_header`",
        ),
        (
            json!({"per_second": 1, "when_full": "refuse"}),
            "without `key_header`",
        ),
        (
            json!({"per_second": 1, "key_header": "x y"}),
            "`x y` is not the name of a header",
        ),
        (
            json!({"per_second": 1, "cost_header": ""}),
            "`` is not the name of a header",
        ),
        (json!({"per_second": 1, "rate": 2}), "unknown field `rate`"),
    ] {
        let error = rate(text.clone()).err().unwrap_or_default();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn a_bulkhead_is_read_as_it_is_written_and_what_is_absent_is_the_default() {
    assert_eq!(places(json!({"max": 8})), Ok(ConcurrencyPolicy::new(8)));
    let full = json!({
        "max": 64,
        "max_queued": 16,
        "max_wait": "100ms",
        "share": {"critical": 1.0, "normal": 0.9, "sheddable": 0.5, "bulk": 0.0},
        "priority_header": "x-priority",
    });
    let right = ConcurrencyPolicy::new(64)
        .max_queued(16)
        .max_wait(millis(100))
        .share(Priority::Normal, 0.9)
        .share(Priority::Sheddable, 0.5)
        .share(Priority::Bulk, 0.0)
        .priority_header(name("x-priority"));
    assert_eq!(places(full.clone()), Ok(right.clone()));
    assert_eq!(to_value(right).unwrap(), full);
    let adaptive = ConcurrencyPolicy::adaptive(AdaptivePolicy::new().max(50));
    assert_eq!(
        places(json!({"adaptive": {"max": 50}, "share": {"bulk": 0.5}})),
        Ok(adaptive.clone())
    );
    assert_eq!(places(to_value(&adaptive).unwrap()), Ok(adaptive));
}

#[test]
fn what_makes_no_sense_of_a_bulkhead_is_refused() {
    for (text, says) in [
        (json!({}), "`max` or `adaptive`"),
        (json!({"max": 0}), "at least 1"),
        (json!({"max": 5, "adaptive": {}}), "contradict each other"),
        (
            json!({"adaptive": {"min": 0}}),
            "`min` (0) must be at least 1",
        ),
        (json!({"max": 5, "max_queued": 5}), "both"),
        (json!({"max": 5, "max_wait": "1s"}), "both"),
        (json!({"max": 5, "share": {"bulk": 1.5}}), "from 0 to 1"),
        (
            json!({"max": 5, "share": {"bulk": 0.9}}),
            "a priority above",
        ),
        (json!({"max": 5, "share": {"batch": 0.1}}), "unknown field"),
        (json!({"max": 5, "priority_header": "x y"}), "`x y`"),
        (json!({"max": 5, "queue": 5}), "unknown field `queue`"),
    ] {
        let error = places(text.clone()).err().unwrap_or_default();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_does_what_its_policy_says() {
    let policy = RateLimitPolicy::new(1.0)
        .burst(3)
        .max_wait(secs(1))
        .key_header(name("x-tenant"))
        .max_keys(1)
        .when_full(WhenFull::Refuse)
        .cost_header(name("x-cost"))
        .headers(true);
    let service = RateLimitLayer::with_policy(&policy).layer(Probe::new(Answer::default()));
    let call = async |tenant: &str, cost: &str| {
        let request = Request::builder()
            .header("x-tenant", tenant)
            .header("x-cost", cost)
            .body(())
            .unwrap();
        let response = (&service).oneshot(request).await?;
        Ok(response.headers()["ratelimit"].to_str().unwrap().to_owned())
    };
    assert_eq!(
        call("ann", "2")
            .await
            .map_err(|error: BoxError| error.to_string()),
        Ok("\"default\";r=1;t=2".to_owned())
    );
    assert_eq!(
        reason(call("bob", "1").await),
        Some(Reason::RateLimited),
        "there is a bucket for one key, and it is not full"
    );
    assert_eq!(
        reason(call("ann", "3").await),
        Some(Reason::RateLimited),
        "two more are two seconds"
    );
    let begun = Instant::now();
    assert!(call("ann", "2").await.is_ok());
    assert_eq!(begun.elapsed(), secs(1), "one more is one second");
    advance(secs(3)).await;
    assert!(call("bob", "1").await.is_ok(), "a full bucket gives way");
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_does_what_its_policy_says() {
    let policy = ConcurrencyPolicy::new(2)
        .max_queued(2)
        .max_wait(secs(1))
        .share(Priority::Sheddable, 0.5)
        .share(Priority::Bulk, 0.5)
        .priority_header(name("x-priority"));
    let service = ConcurrencyLayer::with_policy(&policy).layer(Probe::new(Answer::default()));
    // Bodies that are not read hold their places.
    let first = (&service).oneshot(request()).await.unwrap();
    let bulk = Request::builder()
        .header("x-priority", "bulk")
        .body(())
        .unwrap();
    let mut waits = Box::pin((&service).oneshot(bulk));
    assert!(
        is_pending(&mut waits).await,
        "one of two is left for others"
    );
    let mut bulk = request();
    CallContext::new()
        .priority(Priority::Bulk)
        .attach(&mut bulk);
    assert_eq!(
        reason((&service).oneshot(bulk).await),
        Some(Reason::Shed),
        "one of two may wait"
    );
    let begun = Instant::now();
    assert_eq!(
        reason(waits.await),
        Some(Reason::Shed),
        "the free place was not for it"
    );
    assert_eq!(begun.elapsed(), secs(1));
    assert!(
        (&service).oneshot(request()).await.is_ok(),
        "the other place"
    );
    drop(first);
}

#[tokio::test]
async fn an_adaptive_bulkhead_has_the_limit_of_its_policy() {
    let policy = AdaptivePolicy::new().initial(7).max(9);
    assert_eq!(ConcurrencyPolicy::adaptive(policy).bulkhead().limit(), 7);
}
