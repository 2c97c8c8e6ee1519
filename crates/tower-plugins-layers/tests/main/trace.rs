use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_plugins_layers::test_util::{Answer, Probe, ScriptedBody};
use tower_plugins_layers::{
    BoxError, CallContext, FallbackUsed, RateLimitLayer, Reason, Refused, TraceLayer,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Dispatch, Event, Metadata, Subscriber};

use crate::support::{is_pending, request, secs};

/// Runs `test` on a paused clock with a recorder of its own.
fn recorded<F: Future<Output = ()>>(test: impl FnOnce(Metrics) -> F) {
    let recorder = DebuggingRecorder::new();
    let metrics = Metrics(recorder.snapshotter());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(test(metrics)));
}

struct Metrics(Snapshotter);

/// What was recorded since the last look.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    requests: u64,
    success: u64,
    fallback: Vec<String>,
    failure: Vec<(String, u64)>,
    durations: Vec<f64>,
    /// How much it has changed.
    active: f64,
}

impl Metrics {
    fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for (key, _, _, value) in self.0.snapshot().into_vec() {
            let labels: HashMap<_, _> = key.key().labels().map(|l| (l.key(), l.value())).collect();
            assert_eq!(labels["plugin_name"], "greeter");
            match (key.key().name(), value) {
                ("plugin_requests_total", DebugValue::Counter(n)) => seen.requests = n,
                ("plugin_requests_success_total", DebugValue::Counter(n)) => seen.success = n,
                ("plugin_requests_failure_total", DebugValue::Counter(n)) if n > 0 => {
                    seen.failure.push((labels["reason"].to_owned(), n));
                }
                ("plugin_requests_failure_total", DebugValue::Counter(_)) => {}
                ("plugin_request_duration_seconds", DebugValue::Histogram(all)) => {
                    seen.durations = all.into_iter().map(f64::from).collect();
                }
                ("plugin_active_requests", DebugValue::Gauge(n)) => seen.active = n.into(),
                ("plugin_fallback_total", DebugValue::Counter(1)) => {
                    seen.fallback.push(labels["reason"].to_owned());
                }
                (name, value) => panic!("{name}: {value:?}"),
            }
        }
        seen
    }

    /// One call ended, at once, and for this reason.
    fn assert_failed(&self, reason: &str) {
        let failure = vec![(reason.to_owned(), 1)];
        let right = Seen {
            requests: 1,
            failure,
            durations: vec![0.0],
            ..Seen::default()
        };
        assert_eq!(self.seen(), right);
    }
}

async fn call(answer: Answer) -> Result<(), BoxError> {
    let service = TraceLayer::new("greeter").layer(Probe::new(answer));
    let response = service.oneshot(request()).await?;
    response.into_body().collect().await.map(drop)
}

/// A call that is answered with this response, read to its end.
async fn answered(response: Response<ScriptedBody>) {
    let mut response = Some(response);
    let service = TraceLayer::new("greeter").layer(service_fn(move |_| {
        let response = response.take().expect("one call");
        async { Ok::<_, BoxError>(response) }
    }));
    let response = service.oneshot(request()).await.unwrap();
    response.into_body().collect().await.unwrap();
}

fn grpc_status(status: &'static str) -> HeaderMap {
    let name = HeaderName::from_static("grpc-status");
    HeaderMap::from_iter([(name, HeaderValue::from_static(status))])
}

fn with_trailers(trailers: HeaderMap) -> Response<ScriptedBody> {
    Response::new(ScriptedBody::new([Some(Ok(Frame::trailers(trailers)))]))
}

#[test]
fn a_call_that_ends_well_is_a_success_that_lasted_to_the_end_of_its_body() {
    recorded(|metrics| async move {
        let service = TraceLayer::new("greeter").layer(Probe::new(Answer::Frames));
        let mut body = service.oneshot(request()).await.unwrap().into_body();
        let begun = Seen {
            requests: 1,
            active: 1.0,
            ..Seen::default()
        };
        assert_eq!(metrics.seen(), begun);
        tokio::time::advance(secs(2)).await;
        while body.frame().await.is_some() {}
        drop(body);
        let ended = Seen {
            active: -1.0,
            success: 1,
            durations: vec![2.0],
            ..Seen::default()
        };
        assert_eq!(metrics.seen(), ended);
        call(Answer::Empty).await.unwrap();
        let right = Seen {
            requests: 1,
            success: 1,
            durations: vec![0.0],
            ..Seen::default()
        };
        assert_eq!(metrics.seen(), right);
    });
}

#[test]
fn an_answer_that_a_fallback_gave_is_counted_as_one() {
    recorded(|metrics| async move {
        let mut response = Response::new(ScriptedBody::frames(["else"]));
        let used = FallbackUsed(Reason::BreakerOpen);
        response.extensions_mut().insert(used);
        answered(response).await;
        let seen = metrics.seen();
        assert_eq!(
            (seen.fallback, seen.success),
            (vec!["breaker_open".to_owned()], 1)
        );
    });
}

#[test]
fn each_failure_has_its_reason() {
    recorded(|metrics| async move {
        call(Answer::Error("broke")).await.unwrap_err();
        metrics.assert_failed("error");
        call(Answer::BodyError("broke")).await.unwrap_err();
        metrics.assert_failed("error");
        for reason in Reason::ALL {
            let service = TraceLayer::new("greeter").layer(service_fn(move |_| async move {
                Err::<Response<String>, BoxError>(Refused::new(reason).into())
            }));
            service.oneshot(request()).await.unwrap_err();
            metrics.assert_failed(reason.as_str());
        }
    });
}

#[test]
fn a_bad_status_is_a_failure_wherever_it_stands() {
    recorded(|metrics| async move {
        let mut failed = Response::new(ScriptedBody::frames(["sorry"]));
        *failed.status_mut() = http::StatusCode::BAD_GATEWAY;
        answered(failed).await;
        metrics.assert_failed("status");

        let mut failed = Response::new(ScriptedBody::frames([]));
        *failed.headers_mut() = grpc_status("14");
        answered(failed).await;
        metrics.assert_failed("status");

        answered(with_trailers(grpc_status("14"))).await;
        metrics.assert_failed("status");

        answered(with_trailers(grpc_status("0"))).await;
        let mut not_found = Response::new(ScriptedBody::frames(["what?"]));
        *not_found.status_mut() = http::StatusCode::NOT_FOUND;
        answered(not_found).await;
        let right = Seen {
            requests: 2,
            success: 2,
            durations: vec![0.0; 2],
            ..Seen::default()
        };
        assert_eq!(metrics.seen(), right);
    });
}

#[test]
fn a_call_that_its_caller_gave_up_is_neither_a_success_nor_a_failure() {
    recorded(|metrics| async move {
        let given_up = Seen {
            requests: 1,
            ..Seen::default()
        };
        let service = TraceLayer::new("greeter").layer(Probe::new(Answer::Never));
        let mut call = service.oneshot(request());
        for _ in 0..3 {
            assert!(is_pending(&mut call).await);
        }
        drop(call);
        assert_eq!(metrics.seen(), given_up);

        let service = TraceLayer::new("greeter").layer(Probe::new(Answer::Silence));
        let mut response = service.oneshot(request()).await.unwrap();
        response.body_mut().frame().await.unwrap().unwrap();
        drop(response);
        assert_eq!(metrics.seen(), given_up);
    });
}

#[test]
fn inside_a_layer_that_waits_the_wait_does_not_count() {
    recorded(|metrics| async move {
        let service = ServiceBuilder::new()
            .layer(RateLimitLayer::new(0.1, 1).max_wait(secs(60)))
            .layer(TraceLayer::new("greeter"))
            .service(Probe::new(Answer::Empty));
        for _ in 0..2 {
            let mut request = request();
            request.extensions_mut().insert(CallContext::new());
            service.clone().oneshot(request).await.unwrap();
        }
        assert_eq!(metrics.seen().durations, [0.0, 0.0]);
    });
}

#[test]
fn reasons_stand_in_the_order_of_their_discriminants() {
    for (n, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, n);
    }
}

/// A subscriber that keeps what it is told of spans.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    /// The fields of each span, the first one's id being 1.
    spans: Vec<HashMap<String, String>>,
    entered: Vec<Id>,
    /// Events, and whether each was within a span.
    events: Vec<bool>,
}

struct Fields<'a>(&'a mut HashMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}").trim_matches('"').to_owned();
        self.0.insert(field.name().to_owned(), text);
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        assert_eq!(span.metadata().name(), "plugin.call");
        let mut fields = HashMap::new();
        span.record(&mut Fields(&mut fields));
        let mut heard = self.0.lock().unwrap();
        heard.spans.push(fields);
        Id::from_u64(heard.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut heard = self.0.lock().unwrap();
        let index = usize::try_from(span.into_u64()).unwrap() - 1;
        values.record(&mut Fields(&mut heard.spans[index]));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        let mut heard = self.0.lock().unwrap();
        let inside = !heard.entered.is_empty();
        heard.events.push(inside);
    }

    fn enter(&self, span: &Id) {
        self.0.lock().unwrap().entered.push(span.clone());
    }

    fn exit(&self, span: &Id) {
        assert_eq!(self.0.lock().unwrap().entered.pop().as_ref(), Some(span));
    }
}

fn listened<F: Future<Output = ()>>(test: impl FnOnce() -> F) -> Vec<HashMap<String, String>> {
    let listener = Listener::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    // With only one subscriber alive, a test on another thread, which has none, would switch the span
    // off for all.
    let _another = Dispatch::new(Listener::default());
    with_default(listener.clone(), || runtime.block_on(test()));
    let heard = std::mem::take(&mut *listener.0.lock().unwrap());
    assert!(heard.entered.is_empty());
    assert!(heard.events.iter().all(|inside| *inside));
    heard.spans
}

fn fields(fields: &HashMap<String, String>) -> Vec<(&str, &str)> {
    let mut fields: Vec<_> = fields
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    fields.sort_unstable();
    fields
}

#[test]
fn a_span_says_what_was_called_and_what_came_of_it() {
    let spans = listened(|| async {
        let service = TraceLayer::new("greeter").layer(service_fn(async |_| {
            tracing::info!("inside");
            tokio::task::yield_now().await;
            tracing::info!("still inside");
            Ok::<_, BoxError>(Response::new(String::new()))
        }));
        // A query may hold what is nobody's business.
        let request = Request::put("http://host/hello?token=s3cret")
            .body(())
            .unwrap();
        service.oneshot(request).await.unwrap();
        let service = TraceLayer::new("greeter").layer(service_fn(async |_| {
            Err::<Response<String>, BoxError>(Refused::new(Reason::RateLimited).into())
        }));
        service.oneshot(request_to("/limited")).await.unwrap_err();
        let mut failed = Response::new(ScriptedBody::frames([]));
        *failed.status_mut() = http::StatusCode::BAD_GATEWAY;
        answered(failed).await;
    });
    assert_eq!(
        fields(&spans[0]),
        [
            ("http.request.method", "PUT"),
            ("http.response.status_code", "200"),
            ("plugin.name", "greeter"),
            ("url.path", "/hello"),
        ]
    );
    assert_eq!(
        fields(&spans[1]),
        [
            ("error.type", "rate_limited"),
            ("http.request.method", "GET"),
            ("plugin.name", "greeter"),
            ("url.path", "/limited"),
        ]
    );
    assert_eq!(spans[2]["http.response.status_code"], "502");
    assert_eq!(spans[2]["error.type"], "status");
    assert_eq!(spans.len(), 3);
}

fn request_to(path: &str) -> Request<()> {
    Request::get(path).body(()).unwrap()
}

/// Counts the handles that are asked for.
#[derive(Default)]
struct Registrations(std::sync::atomic::AtomicUsize);

impl Registrations {
    fn one_more(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl metrics::Recorder for Registrations {
    fn describe_counter(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_gauge(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_histogram(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        self.one_more();
        metrics::Counter::noop()
    }

    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        self.one_more();
        metrics::Gauge::noop()
    }

    fn register_histogram(
        &self,
        _: &metrics::Key,
        _: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        self.one_more();
        metrics::Histogram::noop()
    }
}

#[test]
fn handles_are_made_with_the_layer_and_not_for_each_call() {
    let recorder = Registrations::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let layer = TraceLayer::new("greeter");
            let made = recorder.0.load(std::sync::atomic::Ordering::Relaxed);
            assert!(made > 0);
            for _ in 0..100 {
                let service = layer.layer(Probe::new(Answer::Frames));
                let response = service.oneshot(request()).await.unwrap();
                response.into_body().collect().await.unwrap();
            }
            assert_eq!(recorder.0.load(std::sync::atomic::Ordering::Relaxed), made);
        });
    });
}
