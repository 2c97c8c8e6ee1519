//! Why a call was refused is one word, wherever it is told.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use http::{HeaderName, Request, Response};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{ServiceExt, service_fn};
use tower_plugins::{Body, Builder, Next, Place, Plugins, Reason};
use tower_plugins_layers::{BoxError, Refused};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};

use crate::support::{config, get};

/// Keeps each `error.type` that is written on a span.
#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<String>>>);

impl Visit for &Errors {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "error.type" {
            self.0.lock().unwrap().push(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl Subscriber for Errors {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut this = self;
        values.record(&mut this);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The labels `reason` of the calls of `p` that failed, each as often as it was counted.
fn counted(recorder: &DebuggingRecorder) -> Vec<String> {
    let mut reasons = Vec::new();
    for (key, _, _, value) in recorder.snapshotter().snapshot().into_vec() {
        let DebugValue::Counter(times) = value else {
            continue;
        };
        if key.key().name() == "plugin_requests_failure_total" {
            let mut labels = key.key().labels();
            let reason = labels.find(|label| label.key() == "reason").unwrap();
            reasons.extend((0..times).map(|_| reason.value().to_owned()));
        }
    }
    reasons
}

/// Two calls of `p` are refused for `reason`, one to its handle and one to it as a route, and whatever tells of them
/// has that word.
async fn refused(plugins: Builder, keys: &str, reason: Reason) {
    const NAME: HeaderName = HeaderName::from_static("x-refused-reason");
    let heard = Errors::default();
    // With only one subscriber alive, a test on another thread, which has none, would switch spans off for all.
    let _another = Dispatch::new(Errors::default());
    let _listening = tracing::subscriber::set_default(heard.clone());
    let recorder = DebuggingRecorder::new();
    let _recording = metrics::set_default_local_recorder(&recorder);

    let never = |_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>();
    let yaml = format!("plugins: {{ p: {{ transport: in-process, endpoint: never, {keys} }} }}");
    let plugins = plugins.service("never", service_fn(never));
    let plugins = plugins.start(config(&yaml)).await.unwrap();
    let p = plugins.plugin("p");
    let error = p.clone().oneshot(get("/")).await.unwrap_err();
    let route = p.into_route().reason_header(NAME);
    let response = route.oneshot(get("/")).await.unwrap();

    let word = reason.as_str();
    assert_eq!(error.reason(), Some(reason));
    assert_eq!(response.headers()[NAME], word);
    assert_eq!(counted(&recorder), [word; 2]);
    let heard = heard.0.lock().unwrap();
    assert!(heard.len() >= 2, "{heard:?}");
    assert!(heard.iter().all(|heard| heard == word), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn each_reason_is_the_same_word_in_the_error_the_metric_the_span_and_the_header() {
    for reason in Reason::ALL {
        let refuse = tower::layer::layer_fn(move |_: Next| {
            service_fn(move |_: Request<Body>| async move {
                Err::<Response<Body>, BoxError>(Refused::new(reason).into())
            })
        });
        let plugins = Plugins::builder().layer(Place::Attempt, "refuse", refuse);
        refused(plugins, "retry: off", reason).await;
    }
}

#[tokio::test(start_paused = true)]
async fn so_it_is_for_what_the_layers_refuse_and_cut_short() {
    for (keys, reason) in [
        ("authorize: { api_keys: { a: k } }", Reason::Unauthenticated),
        (
            "load_balancing: { subset: { version: v2 }, subset_fallback: none }",
            Reason::NoEndpoint,
        ),
        (
            "connection: { request_timeout: 1s }, retry: off",
            Reason::DeadlineExceeded,
        ),
        (
            "retry: { max_retries: 1, attempt_timeout: 1s }",
            Reason::AttemptTimeout,
        ),
    ] {
        refused(Plugins::builder(), keys, reason).await;
    }
}
