//! Plugins that cannot run twice.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower_plugins::config::Config;
use tower_plugins::reload::ReloadPhase;
use tower_plugins::transport::{EndpointArgs, ResponseFuture, Transport};
use tower_plugins::{Body, Plugins};

use super::support::{MS, SECOND, who};
use crate::support::{call, causes, config, get, ours};

/// Counts how many of it there are, and answers with its endpoint; `/stream` never ends.
struct Device {
    endpoint: String,
    there: Arc<AtomicUsize>,
}

impl Transport for Device {
    fn call(&self, request: http::Request<Body>) -> ResponseFuture<'_> {
        let endpoint = self.endpoint.clone();
        Box::pin(async move {
            if request.uri().path() == "/stream" {
                let never =
                    futures_util::stream::pending::<Result<http_body::Frame<_>, std::io::Error>>();
                return Ok(Response::new(Body::new(http_body_util::StreamBody::new(
                    never,
                ))));
            }
            Ok(Response::new(Body::from(endpoint)))
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.there.fetch_sub(1, SeqCst);
    }
}

/// A set that may have one device at a time, of which one that is `broken` cannot be made.
async fn start(config: Config) -> (Plugins, Arc<AtomicUsize>) {
    let most = Arc::<AtomicUsize>::default();
    let (seen, there) = (Arc::clone(&most), Arc::<AtomicUsize>::default());
    let plugins = Plugins::builder()
        .transport("device", move |args: EndpointArgs<()>| {
            if args.endpoint == "broken" {
                return Err("it does not start");
            }
            seen.fetch_max(there.fetch_add(1, SeqCst) + 1, SeqCst);
            Ok(Device {
                endpoint: args.endpoint,
                there: Arc::clone(&there),
            })
        })
        .start(config)
        .await
        .unwrap();
    (plugins, most)
}

fn device(endpoint: &str) -> Config {
    config(&format!(
        "
        reload: {{ max_held: 2 }}
        plugins:
          p: {{ transport: device, endpoint: '{endpoint}', exclusive: true, drain_timeout: 5s, connection: {{ request_timeout: 20s }} }}
        "
    ))
}

async fn until_exchanging(plugins: &Plugins) {
    let mut status = plugins.subscribe();
    let exchanging = status.wait_for(|status| status.phase == ReloadPhase::Exchanging);
    exchanging.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_are_held_while_one_takes_the_place_of_the_other() {
    let (plugins, most) = start(device("one")).await;
    let stream = call(&plugins.plugin("p"), get("/stream")).await.unwrap();
    let reader = tokio::spawn(stream.into_body().collect());
    let held = async {
        until_exchanging(&plugins).await;
        who(&plugins, "p").await
    };
    let (report, held) = tokio::join!(plugins.reload(device("two")).into_future(), held);
    let report = report.unwrap();
    assert_eq!(held.unwrap(), "two", "it has waited");
    assert_eq!(
        report.times.exchanging,
        5 * SECOND,
        "as long as the stream was let go on"
    );
    let error = reader.await.unwrap().unwrap_err();
    assert!(ours(&*error).is_drain_cancelled());
    assert_eq!(most.load(SeqCst), 1, "never two at a time");
    assert_eq!(plugins.status().cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_start_leaves_the_old_one_started_again() {
    let (plugins, most) = start(device("one")).await;
    let held = async {
        until_exchanging(&plugins).await;
        who(&plugins, "p").await
    };
    let stream = call(&plugins.plugin("p"), get("/stream")).await.unwrap();
    let _reader = tokio::spawn(stream.into_body().collect());
    let (report, held) = tokio::join!(plugins.reload(device("broken")).into_future(), held);
    let error = causes(&report.unwrap_err());
    assert!(error.contains("it does not start"), "{error}");
    assert!(error.contains("p was started again as it was"), "{error}");
    assert_eq!(held.unwrap(), "one");
    assert_eq!(most.load(SeqCst), 1);
    assert_eq!(
        (plugins.status().rejected, plugins.status().phase),
        (1, ReloadPhase::Idle)
    );
    // And it can be exchanged afterwards.
    plugins.reload(device("two")).await.unwrap();
    assert_eq!(who(&plugins, "p").await.unwrap(), "two");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_calls_are_held_and_none_past_its_deadline() {
    let (plugins, _) = start(device("one")).await;
    let stream = call(&plugins.plugin("p"), get("/stream")).await.unwrap();
    let _reader = tokio::spawn(stream.into_body().collect());
    let calls = async {
        until_exchanging(&plugins).await;
        let patient = tokio::spawn({
            let plugins = plugins.clone();
            async move { who(&plugins, "p").await }
        });
        let hasty = tokio::spawn({
            let p = plugins.plugin("p");
            async move {
                use tower_plugins::call::Method;
                static ASK: Method<(), serde_json::Value> = Method::get("/");
                p.invoke(&ASK, &())
                    .timeout(Duration::from_millis(500))
                    .await
            }
        });
        sleep(Duration::from_millis(100)).await;
        let third = who(&plugins, "p").await.unwrap_err();
        (patient.await.unwrap(), hasty.await.unwrap(), third)
    };
    let (report, (patient, hasty, third)) =
        tokio::join!(plugins.reload(device("two")).into_future(), calls);
    report.unwrap();
    assert_eq!(patient.unwrap(), "two");
    assert!(hasty.unwrap_err().is_timeout());
    assert_eq!(third.reason(), Some(tower_plugins::Reason::Draining));
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_waits_for_the_one_that_left() {
    let (plugins, most) = start(device("one")).await;
    let stream = call(&plugins.plugin("p"), get("/stream")).await.unwrap();
    let reader = tokio::spawn(stream.into_body().collect());
    plugins.disable("p").await.unwrap();
    plugins.enable("p").await.unwrap();
    assert!(reader.is_finished());
    assert_eq!(who(&plugins, "p").await.unwrap(), "one");
    assert_eq!(most.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_go_of_those_that_are_held() {
    let (plugins, _) = start(device("one")).await;
    let stream = call(&plugins.plugin("p"), get("/stream")).await.unwrap();
    let _reader = tokio::spawn(stream.into_body().collect());
    let end = async {
        until_exchanging(&plugins).await;
        let held = tokio::spawn({
            let plugins = plugins.clone();
            async move { who(&plugins, "p").await }
        });
        sleep(Duration::from_millis(100)).await;
        plugins.shutdown(SECOND).await.unwrap();
        held.await.unwrap()
    };
    let (report, held) = tokio::join!(plugins.reload(device("two")).into_future(), end);
    assert!(report.unwrap_err().is_shutdown());
    assert!(held.unwrap_err().is_shutdown());
}

/// Two devices, of which one waits for its calls for longer than the other.
fn two(endpoint: &str, reload: &str, time: &str) -> Config {
    config(&format!(
        "
        reload: {{ {reload} }}
        plugins:
          p: {{ transport: device, endpoint: '{endpoint}', exclusive: true, drain_timeout: 5s, connection: {{ request_timeout: 20s }} }}
          q: {{ transport: device, endpoint: '{endpoint}', exclusive: true, drain_timeout: 5s, connection: {{ request_timeout: {time} }} }}
        "
    ))
}

#[tokio::test(start_paused = true)]
async fn a_call_is_held_within_its_own_deadline_and_that_of_its_own_plugin() {
    let (plugins, _) = start(two("one", "", "1s")).await;
    let stream = call(&plugins.plugin("p"), get("/stream")).await.unwrap();
    let _reader = tokio::spawn(stream.into_body().collect());
    let calls = async {
        until_exchanging(&plugins).await;
        let begun = Instant::now();
        let timed = |name: &str, grpc_timeout: Option<&'static str>| {
            let plugin = plugins.plugin(name);
            let mut request = get("/");
            if let Some(time) = grpc_timeout {
                let time = http::HeaderValue::from_static(time);
                request.headers_mut().insert("grpc-timeout", time);
            }
            async move {
                let answer = crate::support::text(&plugin, request).await;
                (answer, begun.elapsed())
            }
        };
        tokio::join!(
            timed("p", None),
            timed("q", None),
            timed("p", Some("300m")),
            timed("p", Some("10S")),
        )
    };
    let (report, (patient, hasty, grpc, long)) =
        tokio::join!(plugins.reload(two("two", "", "1s")).into_future(), calls);
    report.unwrap();
    assert_eq!(patient.0.unwrap(), "two");
    assert_eq!(long.0.unwrap(), "two");
    for ((answer, took), limit) in [(hasty, SECOND), (grpc, 300 * MS)] {
        assert!(answer.unwrap_err().is_timeout());
        assert!(took >= limit && took < limit + 10 * MS, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_plugin_of_an_exchange_is_hurried_for_another_of_the_same() {
    let reload = "max_retiring: 1";
    let (plugins, _) = start(two("one", reload, "20s")).await;
    let mut readers = Vec::new();
    for name in ["p", "q"] {
        let stream = call(&plugins.plugin(name), get("/stream")).await.unwrap();
        readers.push(tokio::spawn(stream.into_body().collect()));
    }
    let report = plugins.reload(two("two", reload, "20s")).await.unwrap();
    assert_eq!(report.times.exchanging, 5 * SECOND);
    for reader in readers {
        // Not before its drain timeout.
        assert!(reader.await.unwrap().is_err());
    }
    assert_eq!(plugins.status().cancelled, 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_as_one_of_many_waits_for_the_one_that_left() {
    let (plugins, most) = start(device("one")).await;
    let stream = call(&plugins.plugin("p"), get("/stream")).await.unwrap();
    let reader = tokio::spawn(stream.into_body().collect());
    plugins.remove("p").await.unwrap();
    let mut spec = device("two").plugins["p"].clone();
    spec.policy.exclusive = false;
    plugins.update(spec).await.unwrap();
    assert!(reader.is_finished());
    assert_eq!(who(&plugins, "p").await.unwrap(), "two");
    assert_eq!(most.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_without_end_is_no_fault_of_an_exchange() {
    use tower_plugins::reload::ReloadOptions;
    let (plugins, most) = start(device("one")).await;
    let stream = call(&plugins.plugin("p"), get("/stream")).await.unwrap();
    let reader = tokio::spawn(stream.into_body().collect());
    let for_ever = || ReloadOptions::new().drain_timeout(Duration::MAX);
    plugins.remove("p").options(for_ever()).await.unwrap();
    let spec = device("two").plugins["p"].clone();
    let update = tokio::spawn({
        let plugins = plugins.clone();
        async move { plugins.update(spec).options(for_ever()).await }
    });
    sleep(10 * SECOND).await;
    assert!(!update.is_finished(), "the first is still there");
    reader.abort();
    crate::support::within(update).await.unwrap().unwrap();
    assert_eq!(most.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_typed_call_was_held_is_of_its_time() {
    use tower_plugins::call::Method;
    static ASK: Method<(), String> = Method::get("/stream");
    let (plugins, _) = start(device("one")).await;
    let stream = call(&plugins.plugin("p"), get("/stream")).await.unwrap();
    let _reader = tokio::spawn(stream.into_body().collect());
    let held = async {
        until_exchanging(&plugins).await;
        let begun = Instant::now();
        let p = plugins.plugin("p");
        let answer = p.invoke(&ASK, &()).timeout(8 * SECOND).await;
        (answer, begun.elapsed())
    };
    let (report, (answer, took)) = tokio::join!(plugins.reload(device("two")).into_future(), held);
    report.unwrap();
    assert!(answer.unwrap_err().is_timeout());
    assert_eq!(took.as_secs(), 8, "5 of them until there was a plugin");
}

#[tokio::test(start_paused = true)]
async fn what_is_exchanged_is_there_and_drains_already() {
    let (plugins, _) = start(device("one")).await;
    let stream = call(&plugins.plugin("p"), get("/stream")).await.unwrap();
    let _reader = tokio::spawn(stream.into_body().collect());
    let drain = async {
        until_exchanging(&plugins).await;
        plugins.drain("p").await
    };
    let (report, drained) = tokio::join!(plugins.reload(device("two")).into_future(), drain);
    report.unwrap();
    let error = drained.unwrap_err();
    assert_eq!(error.reason(), Some(tower_plugins::Reason::Draining));
}

#[tokio::test(start_paused = true)]
async fn one_that_was_made_and_never_served_is_gone_before_the_next_is_made() {
    let (plugins, most) = start(Config::new()).await;
    let unready = config(
        "
        plugins:
          a: { transport: unix, endpoint: /nowhere.sock, start: ready, start_timeout: 1s }
          p: { transport: device, endpoint: one, exclusive: true, start: ready, start_timeout: 1m }
        ",
    );
    let update = device("two").plugins.remove("p").unwrap();
    let (refused, report) = tokio::join!(
        plugins.reload(unready).into_future(),
        plugins.update(update).into_future(),
    );
    assert!(refused.unwrap_err().is_config());
    report.unwrap();
    assert_eq!(who(&plugins, "p").await.unwrap(), "two");
    assert_eq!(most.load(SeqCst), 1);
}
