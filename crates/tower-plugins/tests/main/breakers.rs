//! The breakers of plugins that run, seen from outside.

use http::StatusCode;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower_plugins::config::{Address, Config, PluginSpec};
use tower_plugins::{Body, Plugins};

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
