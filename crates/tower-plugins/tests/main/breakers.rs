//! The breakers of plugins that run, seen from outside.

use http::StatusCode;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::time::Instant;
use tower_plugins::breaker::BreakerState;
use tower_plugins::config::{Address, Config, PluginSpec};
use tower_plugins::{Body, Plugins, Reason};

use crate::support::{call, get};

/// A service that answers as the path of the request says.
fn answers() -> impl tower::Service<
    http::Request<Body>,
    Response = http::Response<Body>,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync {
    tower::service_fn(|request: http::Request<Body>| async move {
        let status = request.uri().path()[1..].parse().unwrap();
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    })
}

#[tokio::test]
async fn a_gauge_has_the_state_of_each_endpoint_of_each_plugin() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let states = || {
        let mut states = Vec::new();
        for (key, _, _, value) in snapshots.snapshot().into_vec() {
            if key.key().name() == "plugin_circuit_breaker_state" {
                let labels = key.key().labels().map(|label| {
                    assert!(["plugin_name", "endpoint"].contains(&label.key()));
                    label.value().to_owned()
                });
                let DebugValue::Gauge(value) = value else {
                    panic!("{value:?}");
                };
                states.push((labels.collect::<Vec<_>>().join(" "), value.into_inner()));
            }
        }
        states.sort_by(|one, two| one.0.cmp(&two.0));
        states
    };
    // A config cannot say this; a program can.
    let secret = Address::Http {
        authority: "user:password@10.0.0.1:80".parse().unwrap(),
        prefix: "/v1".to_owned(),
    };
    let config = Config::new()
        .with(PluginSpec::in_process("p", "answers").unwrap())
        .with(PluginSpec::new(
            tower_plugins::config::PluginName::new("q").unwrap(),
            secret,
        ));
    let plugins = Plugins::builder()
        .service("answers", answers())
        .start(config)
        .await
        .unwrap();
    let named = |p| {
        vec![
            ("p in-process:answers".to_owned(), p),
            ("q http://10.0.0.1:80/v1".to_owned(), 0.0),
        ]
    };
    assert_eq!(states(), named(0.0));
    let p = plugins.plugin("p");
    for _ in 0..5 {
        assert_eq!(call(&p, get("/500")).await.unwrap().status(), 500);
    }
    assert_eq!(states()[0], named(1.0)[0]);
}

/// The plugin `p` at the endpoints `one` and `two`, with these `keys`.
fn at(keys: &str) -> Config {
    crate::support::config(&format!(
        "plugins: {{ p: {{ transport: in-process, endpoints: [one, two], retry: off, {keys} }} }}"
    ))
}

#[tokio::test(start_paused = true)]
async fn the_breakers_of_a_plugin_are_watched_and_steered_and_survive_reloads() {
    let plugins = Plugins::builder()
        .service("one", answers())
        .service("two", answers())
        .start(at("load_balancing: { strategy: round-robin }"))
        .await
        .unwrap();
    let p = plugins.plugin("p");
    let names = |plugins: &Plugins| {
        let breakers = plugins.breakers("p").into_iter();
        breakers
            .map(|(address, _)| address.to_string())
            .collect::<Vec<_>>()
    };
    let both = ["in-process:one", "in-process:two"];
    assert_eq!(names(&plugins), both);
    assert!(plugins.breakers("q").is_empty());

    let [(_, one), (_, two)] = &plugins.breakers("p")[..] else {
        panic!("{:?}", names(&plugins));
    };
    let mut changes = two.subscribe().unwrap();
    one.force_open();
    for _ in 0..5 {
        assert_eq!(call(&p, get("/500")).await.unwrap().status(), 500);
    }
    let change = changes.recv().await.unwrap();
    assert_eq!(
        (change.to, change.reason),
        (BreakerState::Open, Some(Reason::ConsecutiveFailures))
    );
    let error = call(&p, get("/200")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoEndpoint));

    // Another policy judges by the same history, and old handles and new ones steer the same breaker.
    let slower =
        "load_balancing: { strategy: round-robin }, circuit_breaker: { failure_threshold: 2 }";
    plugins.reload(at(slower)).await.unwrap();
    assert!(call(&p, get("/200")).await.is_err());
    let of = |plugins: &Plugins, n: usize| plugins.breakers("p").swap_remove(n).1;
    assert!(of(&plugins, 0).snapshot(Instant::now()).unwrap().forced);
    assert_eq!(of(&plugins, 1).state(), BreakerState::Open);
    two.reset();
    assert_eq!(of(&plugins, 1).state(), BreakerState::Closed);
    for status in [200, 500, 500] {
        assert_eq!(
            call(&p, get(&format!("/{status}"))).await.unwrap().status(),
            status
        );
    }
    assert_eq!(
        two.state(),
        BreakerState::Open,
        "two failures are enough now"
    );
    of(&plugins, 0).reset();
    assert_eq!(call(&p, get("/200")).await.unwrap().status(), 200);
    assert_eq!(one.state(), BreakerState::Closed);

    plugins.reload(at("circuit_breaker: off")).await.unwrap();
    assert_eq!(names(&plugins), [""; 0]);
    plugins.reload(at("")).await.unwrap();
    assert_eq!(names(&plugins), both);
    assert_eq!(of(&plugins, 1).state(), BreakerState::Open);
}
