mod spans;

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_plugins_layers::test_util::{Answer, Probe, ScriptedBody};
use tower_plugins_layers::{
    BoxError, CallContext, FallbackUsed, RateLimitLayer, Reason, Refused, TraceLayer,
};

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
