//! Reloads under load, and calls that end in other ways than they should.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tower::{ServiceExt, service_fn};
use tower_plugins::config::Config;
use tower_plugins::transport::{EndpointArgs, ProbeFuture, ResponseFuture, Transport};
use tower_plugins::{Body, Plugin, Plugins, Reason};

use crate::support::{Shelf, call, channel, config, data, get, ours, text, within};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The endpoint and the credentials of one version.
fn version(n: u64) -> Config {
    config(&format!(
        "plugins: {{ p: {{ transport: in-process, endpoint: v{}, auth: {{ method: bearer, token: v{} }}, retry: off }} }}",
        n % 2,
        n % 2
    ))
}

/// Calls `plugin` ten thousand times a second; the longest that one of a hundred took, and how many there were.
async fn ten_thousand(plugin: &Plugin, time: Duration) -> (Duration, usize) {
    let mut ticks = interval(MS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut calls) = (Instant::now(), JoinSet::new());
    let mut took = Vec::new();
    while begun.elapsed() < time {
        ticks.tick().await;
        for _ in 0..10 {
            let plugin = plugin.clone();
            calls.spawn(async move {
                let begun = Instant::now();
                let response = plugin.oneshot(get("/")).await.unwrap();
                assert_eq!(
                    response.status(),
                    200,
                    "its endpoint got another version's token"
                );
                response.into_body().collect().await.unwrap();
                begun.elapsed()
            });
        }
        while let Some(ended) = calls.try_join_next() {
            took.push(ended.unwrap());
        }
    }
    took.extend(within(calls.join_all()).await);
    took.sort_unstable();
    (took[took.len() * 99 / 100], took.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_17_reloads_at_ten_thousand_calls_a_second_fail_none_and_each_sees_one_version() {
    let service = |own: &'static str| {
        service_fn(move |request: Request<Body>| async move {
            tokio::task::yield_now().await;
            let token = request.headers().get(AUTHORIZATION);
            let is_own = token.is_some_and(|token| token.as_bytes().ends_with(own.as_bytes()));
            let status = if is_own { 200 } else { 400 };
            Ok::<_, Infallible>(
                Response::builder()
                    .status(status)
                    .body(Body::from(own))
                    .unwrap(),
            )
        })
    };
    let plugins = Plugins::builder()
        .service("v0", service("v0"))
        .service("v1", service("v1"))
        .start(version(0))
        .await
        .unwrap();
    let plugin = plugins.plugin("p");
    let (usual, _) = ten_thousand(&plugin, SECOND).await;
    let stop = Arc::<AtomicBool>::default();
    let reloads = tokio::spawn({
        let (plugins, stop) = (plugins.clone(), Arc::clone(&stop));
        async move {
            let (mut ticks, mut n) = (interval(100 * MS), 0);
            while !stop.load(SeqCst) {
                ticks.tick().await;
                n += 1;
                plugins.reload(version(n)).await.unwrap();
            }
            n
        }
    });
    let (p99, calls) = ten_thousand(&plugin, 3 * SECOND).await;
    stop.store(true, SeqCst);
    let reloads = within(reloads).await.unwrap();
    println!("{calls} calls beside {reloads} reloads: p99 {p99:?}, without {usual:?}");
    assert!(reloads >= 10 && calls >= 1_000);
    assert_eq!(plugins.status().cancelled, 0);
}

fn with(n: u32) -> Config {
    config(&format!(
        "plugins: {{ p: {{ transport: in-process, endpoint: shelf, drain_timeout: 5s, connection: {{ request_timeout: {n}h }} }} }}"
    ))
}

#[tokio::test(start_paused = true)]
async fn fault_20_a_body_that_never_ends_is_cut_at_its_drain_timeout_and_holds_up_no_reload() {
    let shelf = Shelf::default();
    let plugins = Plugins::builder().service("shelf", shelf.clone());
    let plugins = plugins.start(with(1)).await.unwrap();
    let (frames, body) = channel();
    shelf.put(body);
    let response = call(&plugins.plugin("p"), get("/")).await.unwrap();
    let begun = Instant::now();
    let reader = tokio::spawn(async move {
        let error = response.into_body().collect().await.unwrap_err();
        (ours(&*error).is_drain_cancelled(), begun.elapsed())
    });
    let endless = tokio::spawn(async move {
        while frames.send(data("on and on")).is_ok() {
            sleep(10 * MS).await;
        }
    });
    let report = plugins.reload(with(2)).await.unwrap();
    plugins.reload(with(3)).await.unwrap();
    assert!(begun.elapsed() < 10 * MS, "neither has waited");
    let retired = report.retirement.wait().await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (1, 0));
    let (is_cancelled, after) = reader.await.unwrap();
    assert!(
        is_cancelled && after >= 5 * SECOND && after < 5 * SECOND + 100 * MS,
        "{after:?}"
    );
    endless.await.unwrap();
    let mut status = plugins.subscribe();
    assert_eq!(
        status
            .wait_for(|status| status.retiring == 0)
            .await
            .unwrap()
            .cancelled,
        1
    );
}

#[tokio::test(start_paused = true)]
async fn fault_21_a_caller_that_goes_away_gives_all_back_at_once_and_is_no_failure() {
    let shelf = Shelf::default();
    let silent =
        service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let plugins = Plugins::builder()
        .service("shelf", shelf.clone())
        .service("silent", silent)
        .start(config(
            "
            plugins:
              head: { transport: in-process, endpoint: silent, concurrency: { max_concurrent: 1 }, circuit_breaker: {} }
              body: { transport: in-process, endpoint: shelf, concurrency: { max_concurrent: 1 }, circuit_breaker: {} }
            ",
        ))
        .await
        .unwrap();
    for name in ["head", "body"] {
        let plugin = plugins.plugin(name);
        for _ in 0..20 {
            let begun = Instant::now();
            if name == "head" {
                let waiting = tokio::spawn(plugin.clone().oneshot(get("/")));
                tokio::task::yield_now().await;
                assert_eq!(
                    plugins.active_requests(name),
                    1,
                    "the one before has given its place back"
                );
                waiting.abort();
                assert!(waiting.await.unwrap_err().is_cancelled());
            } else {
                let (frames, body) = channel();
                shelf.put(body);
                frames.send(data("begun")).unwrap();
                let mut response = call(&plugin, get("/")).await.unwrap();
                response.body_mut().frame().await.unwrap().unwrap();
                drop(response);
                assert!(frames.is_closed());
            }
            assert_eq!(plugins.active_requests(name), 0);
            assert!(begun.elapsed() < MS);
        }
        let (_, breaker) = plugins.breakers(name).remove(0);
        let seen = breaker.snapshot(Instant::now()).unwrap();
        assert_eq!((seen.failures, seen.failures_in_a_row), (0, 0), "{name}");
    }
}

/// Panics where it is told to.
struct Rash(&'static str);

impl Transport for Rash {
    fn call(&self, request: Request<Body>) -> ResponseFuture<'_> {
        assert_ne!((self.0, request.uri().path()), ("call", "/"), "no calls");
        Box::pin(async { Ok(Response::new("well".into())) })
    }

    fn probe(&self) -> ProbeFuture<'_> {
        assert_ne!(self.0, "probe", "no probes");
        Box::pin(async move {
            assert_ne!(self.0, "asked", "no answers");
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn fault_22_a_panic_of_the_programs_own_code_costs_one_call_or_one_reload() {
    let plugins = Plugins::builder()
        .transport("rash", |args: EndpointArgs<()>| {
            let places = ["call", "probe", "asked", "never"];
            let place = places.into_iter().find(|place| **place == args.endpoint);
            Ok::<_, Infallible>(Rash(place.expect("no such place")))
        })
        .layer_named(
            "rash",
            |(): ()| -> Result<tower::layer::util::Identity, Infallible> { panic!("no layers") },
        )
        .start(config(
            "plugins: { p: { transport: rash, endpoint: never } }",
        ))
        .await
        .unwrap();
    let failed = AtomicU64::new(0);
    for (keys, words) in [
        ("endpoint: nowhere", "no such place"),
        ("endpoint: never, layers: [{ name: rash }]", "no layers"),
        (
            "endpoint: probe, start: ready, start_timeout: 1s",
            "no probes",
        ),
        (
            "endpoint: asked, start: ready, start_timeout: 1s",
            "panicked",
        ),
    ] {
        let rash = config(&format!("plugins: {{ p: {{ transport: rash, {keys} }} }}"));
        let error = plugins.reload(rash).await.unwrap_err();
        let said = crate::support::causes(&error);
        assert!(error.is_config() && said.contains(words), "{said}");
        failed.fetch_add(1, SeqCst);
        assert_eq!(text(&plugins.plugin("p"), get("/")).await.unwrap(), "well");
    }
    assert_eq!(plugins.status().rejected, failed.into_inner());
    // And that of a call is the call's.
    let calls = "plugins: { p: { transport: rash, endpoint: call, circuit_breaker: off, concurrency: { max_concurrent: 1 } } }";
    plugins.reload(config(calls)).await.unwrap();
    for _ in 0..3 {
        let error = text(&plugins.plugin("p"), get("/")).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::Panicked));
        assert_eq!(error.http_status(), 500);
        assert_eq!(
            text(&plugins.plugin("p"), get("/other")).await.unwrap(),
            "well"
        );
    }
    assert_eq!(plugins.active_requests("p"), 0);
}
