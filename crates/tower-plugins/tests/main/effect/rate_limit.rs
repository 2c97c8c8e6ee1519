use std::time::Duration;

use tokio::time::{Instant, advance};
use tower_plugins::Reason;

use super::stage::{SECOND, Stage, refusals};
use crate::support::{config, get};

async fn limited(keys: &str) -> Stage {
    Stage::of(&format!("rate_limit: {{ {keys} }}")).await
}

#[tokio::test(start_paused = true)]
async fn enabled_false_lifts_a_limit_of_the_defaults() {
    let root = "default_rate_limit: { requests_per_second: 1 },";
    for (enabled, asked) in [(true, 1), (false, 10)] {
        let keys = format!("rate_limit: {{ enabled: {enabled} }}");
        let stage = Stage::pair(root, &keys).await;
        assert_eq!(stage.asked_by("q", 10).await, asked);
        assert_eq!(stage.asked(10).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_per_second_is_how_fast_tokens_come_back() {
    for (rate, period) in [
        ("4", Duration::from_millis(250)),
        ("0.5", 2 * SECOND),
        ("30/m", 2 * SECOND),
    ] {
        let stage = limited(&format!("requests_per_second: {rate}, burst_size: 1")).await;
        for _ in 0..5 {
            assert_eq!(stage.asked(2).await, 1, "{rate}");
            assert_eq!(stage.refusal().await, Some(Reason::RateLimited));
            advance(period - Duration::from_millis(1)).await;
            assert_eq!(stage.refusal().await, Some(Reason::RateLimited));
            advance(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn burst_size_is_what_a_rested_bucket_holds() {
    for burst in [1, 5] {
        let stage = limited(&format!("requests_per_second: 2, burst_size: {burst}")).await;
        for _ in 0..3 {
            assert_eq!(stage.asked(10).await, burst);
            advance(60 * SECOND).await;
        }
    }
    let stage = limited("requests_per_second: 2").await;
    assert_eq!(stage.asked(10).await, 2, "one second's tokens");
}

#[tokio::test(start_paused = true)]
async fn max_wait_is_how_long_a_call_waits_for_a_token() {
    let one_a_second = "requests_per_second: 1, burst_size: 1";
    for (wait, answered) in [("0s", 1), ("1s", 2), ("3500ms", 4)] {
        let stage = limited(&format!("{one_a_second}, max_wait: {wait}")).await;
        let begun = Instant::now();
        let mut calls = stage.at_once("p", 10);
        let refused = refusals(&mut calls, 10 - answered).await;
        assert_eq!(refused, vec![Reason::RateLimited; 10 - answered], "{wait}");
        assert_eq!(
            begun.elapsed(),
            Duration::ZERO,
            "{wait}: nobody waits in vain"
        );
        calls.join_all().await;
        assert_eq!(stage.gaps(), vec![SECOND; answered - 1], "{wait}");
    }
}

/// A call of a tenant: whether it went through, and the header that says how the tenant stands.
async fn call_of(stage: &Stage, tenant: &str) -> Result<Option<String>, Option<Reason>> {
    let mut request = get("/");
    let tenant = tenant.parse().unwrap();
    request.headers_mut().insert("x-tenant", tenant);
    let response = stage.send("p", request).await.map_err(|e| e.reason())?;
    let stands = response.headers().get("ratelimit");
    Ok(stands.map(|value| value.to_str().unwrap().to_owned()))
}

#[tokio::test(start_paused = true)]
async fn key_header_gives_each_value_a_bucket_of_its_own() {
    for (keys, bobs) in [("", false), (", key_header: X-Tenant", true)] {
        let stage = limited(&format!("requests_per_second: 1, burst_size: 1{keys}")).await;
        assert_eq!(call_of(&stage, "ann").await, Ok(None));
        assert_eq!(call_of(&stage, "ann").await, Err(Some(Reason::RateLimited)));
        assert_eq!(call_of(&stage, "bob").await.is_ok(), bobs);
    }
}

#[tokio::test(start_paused = true)]
async fn max_keys_is_the_number_of_buckets_that_are_remembered() {
    for (most, remembered) in [(1, false), (2, true)] {
        let stage = limited(&format!(
            "requests_per_second: 1, burst_size: 1, key_header: x-tenant, max_keys: {most}"
        ))
        .await;
        call_of(&stage, "ann").await.unwrap();
        call_of(&stage, "bob").await.unwrap();
        assert_eq!(call_of(&stage, "ann").await.is_err(), remembered);
    }
}

#[tokio::test(start_paused = true)]
async fn headers_say_how_the_caller_stands() {
    for (headers, right) in [(false, None), (true, Some("\"default\";r=2;t=1"))] {
        let stage = limited(&format!(
            "requests_per_second: 1, burst_size: 3, headers: {headers}"
        ))
        .await;
        assert_eq!(call_of(&stage, "ann").await, Ok(right.map(str::to_owned)));
    }
}

#[tokio::test(start_paused = true)]
async fn cost_header_has_the_tokens_that_a_call_takes() {
    let costs = ["3", "4", "2", "1", "none", "0", "9", "99999999999"];
    for (keys, wanted) in [
        ("", [true; 8]),
        // Of eight tokens; what is no number costs one.
        (
            ", cost_header: X-Cost",
            [true, true, false, true, false, false, false, false],
        ),
    ] {
        let stage = limited(&format!("requests_per_second: 1, burst_size: 8{keys}")).await;
        for (cost, went) in costs.into_iter().zip(wanted) {
            let mut request = get("/");
            request
                .headers_mut()
                .insert("x-cost", cost.parse().unwrap());
            assert_eq!(stage.send("p", request).await.is_ok(), went, "{cost}");
        }
    }
    let stage = limited("requests_per_second: 1, burst_size: 2, cost_header: x-cost").await;
    assert_eq!(stage.asked(5).await, 2, "without the header it is one");
}

#[tokio::test(start_paused = true)]
async fn headers_of_the_defaults_are_switched_off_alone() {
    let root = "default_rate_limit: { requests_per_second: 1, burst_size: 4, key_header: x-tenant,
            max_keys: 7, cost_header: x-cost, redis: { url: 'redis://localhost' } },
        default_concurrency: { max_concurrent: 1, priority_header: x-priority },
        default_load_balancing: { zone: a },";
    let keys = "rate_limit: { key_header: off, cost_header: off, redis: off },
        concurrency: { priority_header: off }, load_balancing: { zone: off }";
    let config = config(&format!(
        "{{ {root} plugins: {{
            p: {{ transport: in-process, endpoint: one }},
            q: {{ transport: in-process, endpoint: one, {keys} }}
        }} }}"
    ));
    let of = |name: &str| config.plugins[name].policy.clone().into_inner();
    let (p, q) = (of("p"), of("q"));
    let limit = p.rate_limit.unwrap();
    assert!(limit.key_header.is_some() && limit.cost_header.is_some() && limit.redis.is_some());
    assert!(p.concurrency.unwrap().priority_header.is_some());
    assert!(p.balance.zone.is_some());
    let limit = q.rate_limit.unwrap();
    assert_eq!(
        (limit.key_header, limit.cost_header, limit.redis),
        (None, None, None)
    );
    assert_eq!(q.concurrency.unwrap().priority_header, None);
    assert_eq!(q.balance.zone, None);
    // One bucket, and a token for each call.
    let stage = Stage::start_with(config).await;
    for tenant in ["ann", "bob", "eve", "joe", "max"] {
        let mut request = get("/");
        request
            .headers_mut()
            .insert("x-tenant", tenant.parse().unwrap());
        request.headers_mut().insert("x-cost", "4".parse().unwrap());
        let went = stage.send("q", request).await.is_ok();
        assert_eq!(went, tenant != "max", "{tenant}");
    }
}

#[tokio::test(start_paused = true)]
async fn reloads_of_a_rate_let_through_no_more_than_the_rate() {
    for key in ["", ", key_header: x-tenant"] {
        let keys = |rate: f64| {
            format!(
                "rate_limit: {{ requests_per_second: {rate}, burst_size: 1, max_wait: 2s{key} }}"
            )
        };
        let stage = Stage::of(&keys(10.0)).await;
        let mut calls = Vec::new();
        for n in 1..=10 {
            calls.push(stage.at_once("p", 20));
            tokio::time::sleep(Duration::from_millis(1)).await;
            let yaml = format!(
                "plugins: {{ p: {{ transport: in-process, endpoint: one, {} }} }}",
                keys(10.0 + f64::from(n) / 100.0)
            );
            stage.plugins.reload(config(&yaml)).await.unwrap();
        }
        tokio::time::sleep(SECOND).await;
        let seen = stage.seen().len();
        assert!(
            (10..=12).contains(&seen),
            "{seen} in a second at ten a second{key}"
        );
    }
}

/// Of so many calls of `p`, how many went through.
async fn went(stage: &Stage, calls: usize) -> usize {
    let mut went = 0;
    for _ in 0..calls {
        went += usize::from(stage.call().await.is_ok());
    }
    went
}

#[tokio::test(start_paused = true)]
async fn a_changed_rate_holds_from_when_its_reload_is_published_and_not_before() {
    let p = |limit: &str| {
        format!("p: {{ transport: in-process, endpoint: one, rate_limit: {{ {limit} }} }}")
    };
    let q = |endpoint: &str| {
        format!(
            "q: {{ transport: in-process, endpoint: {endpoint}, start: ready, health_check: {{ timeout: 5s }} }}"
        )
    };
    // Full in a day.
    let before = p("requests_per_second: 0.001, burst_size: 100");
    let stage = Stage::start(&format!("plugins: {{ {before} }}")).await;
    assert_eq!(went(&stage, 50).await, 50);

    // It waits a second for a plugin to be ready. What is taken meanwhile is gone afterwards.
    let after = p("requests_per_second: 0.002, burst_size: 200");
    let new = config(&format!("plugins: {{ {after}, {} }}", q("slow")));
    let plugins = stage.plugins.clone();
    let reload = tokio::spawn(async move { plugins.reload(new).await.map(drop) });
    tokio::time::sleep(SECOND / 2).await;
    assert!(!reload.is_finished());
    assert_eq!(went(&stage, 100).await, 50);
    reload.await.unwrap().unwrap();
    assert_eq!(went(&stage, 100).await, 0);

    // One that is refused gives nobody another rate.
    let faster = p("requests_per_second: 1000, burst_size: 1000");
    let new = config(&format!("plugins: {{ {faster}, {} }}", q("never")));
    stage.plugins.reload(new).await.unwrap_err();
    advance(SECOND).await;
    assert_eq!(went(&stage, 1).await, 0);
}
