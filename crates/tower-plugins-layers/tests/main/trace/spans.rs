//! What a subscriber hears of calls and of their attempts.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::retry::{Backoff, ReplayBody, RetryOn};
use tower_plugins_layers::test_util::{Answer, Probe, ScriptedBody};
use tower_plugins_layers::{
    AttemptTimeoutLayer, AttemptTraceLayer, BoxError, BreakerLayer, CallContext, DeadlineLayer,
    HedgeLayer, HedgePolicy, Reason, Refused, RetryLayer, RetryPolicy, TraceLayer,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Dispatch, Event, Metadata, Subscriber};

use super::{answered, grpc_status, with_trailers};
use crate::support::{is_pending, request, secs};

/// A subscriber that keeps what it is told of spans.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    /// The first one's id is 1.
    spans: Vec<Span>,
    entered: Vec<Id>,
    /// Events, and whether each was within a span.
    events: Vec<bool>,
}

struct Span {
    name: &'static str,
    /// The index of the span that it is in.
    within: Option<usize>,
    fields: HashMap<String, String>,
}

impl Span {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    fn sorted(&self) -> Vec<(&str, &str)> {
        let fields = self.fields.iter();
        let mut fields: Vec<_> = fields.map(|(k, v)| (k.as_str(), v.as_str())).collect();
        fields.sort_unstable();
        fields
    }
}

fn index(span: &Id) -> usize {
    usize::try_from(span.into_u64()).unwrap() - 1
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
        let mut fields = HashMap::new();
        span.record(&mut Fields(&mut fields));
        let mut heard = self.0.lock().unwrap();
        let within = heard.entered.last().map(index);
        let name = span.metadata().name();
        heard.spans.push(Span {
            name,
            within,
            fields,
        });
        Id::from_u64(heard.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut heard = self.0.lock().unwrap();
        values.record(&mut Fields(&mut heard.spans[index(span)].fields));
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

fn listened<F: Future<Output = ()>>(test: impl FnOnce() -> F) -> Vec<Span> {
    let listener = Listener::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
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
        spans[0].sorted(),
        [
            ("http.request.method", "PUT"),
            ("http.response.status_code", "200"),
            ("plugin.name", "greeter"),
            ("url.path", "/hello"),
        ]
    );
    assert_eq!(
        spans[1].sorted(),
        [
            ("error.type", "rate_limited"),
            ("http.request.method", "GET"),
            ("plugin.name", "greeter"),
            ("url.path", "/limited"),
        ]
    );
    assert_eq!(spans[2].field("http.response.status_code"), Some("502"));
    assert_eq!(spans[2].field("error.type"), Some("status"));
    assert!(spans.iter().all(|span| span.name == "plugin.call"));
    assert_eq!(spans.len(), 3);
}

fn request_to(path: &str) -> Request<()> {
    Request::get(path).body(()).unwrap()
}

type Made = Result<Response<ScriptedBody>, BoxError>;

/// A service whose attempts take so many seconds, and end so.
fn attempts(
    script: impl IntoIterator<Item = (u64, Made)>,
) -> impl tower::Service<
    Request<ReplayBody<String>>,
    Response = Response<ScriptedBody>,
    Error = BoxError,
    Future: Send,
> + Clone {
    let script = Arc::new(Mutex::new(VecDeque::from_iter(script)));
    service_fn(move |_| {
        let (time, made) = script.lock().unwrap().pop_front().expect("no more");
        async move {
            tokio::time::sleep(secs(time)).await;
            made
        }
    })
}

fn status(code: u16) -> Made {
    let mut response = Response::new(ScriptedBody::frames(["said"]));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    Ok(response)
}

/// Of each attempt: how many were before it, its status and its error.
fn outcomes(spans: &[Span]) -> Vec<(&str, Option<&str>, Option<&str>)> {
    let attempts = spans.iter().filter(|span| span.name == "plugin.attempt");
    attempts
        .map(|span| {
            assert_eq!(span.field("server.address"), Some("one"));
            assert_eq!(spans[span.within.unwrap()].name, "plugin.call");
            let before = span.field("http.request.resend_count").unwrap();
            let status = span.field("http.response.status_code");
            (before, status, span.field("error.type"))
        })
        .collect()
}

#[test]
fn each_attempt_has_a_span_in_its_calls_with_what_came_of_it() {
    let spans = listened(|| async {
        let policy = RetryPolicy::new()
            .max_retries(4)
            .backoff(Backoff::new(secs(1), secs(1)))
            .on([
                RetryOn::ServerError,
                RetryOn::AttemptTimeout,
                RetryOn::ConnectFailure,
                RetryOn::Grpc(14),
            ]);
        let refused: BoxError = Refused::new(Reason::ConnectFailed).into();
        let mut grpc_failure = with_trailers(grpc_status("14"));
        let grpc = HeaderValue::from_static("application/grpc");
        grpc_failure.headers_mut().insert("content-type", grpc);
        let script = [
            (0, status(503)),
            (9, status(200)),
            (0, Err(refused)),
            (0, Ok(grpc_failure)),
            (0, status(200)),
        ];
        let service = ServiceBuilder::new()
            .layer(TraceLayer::new("greeter"))
            .layer(RetryLayer::new(policy))
            .layer(AttemptTimeoutLayer::new(secs(2)))
            .layer(AttemptTraceLayer::new("one"))
            .service(attempts(script));
        let request = Request::get("/").body(String::new()).unwrap();
        let response = service.oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    });
    let right = [
        ("0", Some("503"), Some("status")),
        ("1", None, Some("attempt_timeout")),
        ("2", None, Some("connect_failed")),
        ("3", Some("200"), Some("status")),
        ("4", Some("200"), None),
    ];
    assert_eq!(outcomes(&spans), right);
    assert_eq!(spans.len(), 6);
}

#[test]
fn the_loser_of_a_hedge_has_neither_a_status_nor_an_error() {
    let spans = listened(|| async {
        let service = ServiceBuilder::new()
            .layer(TraceLayer::new("greeter"))
            .layer(HedgeLayer::new(HedgePolicy::after(secs(1))))
            .layer(AttemptTraceLayer::new("one"))
            .service(attempts([(9, status(200)), (1, status(200))]));
        let mut request = Request::get("/").body(String::new()).unwrap();
        CallContext::new().attach(&mut request);
        let response = service.oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    });
    let right = [("0", None, None), ("1", Some("200"), None)];
    assert_eq!(outcomes(&spans), right);
}

#[test]
fn an_attempt_that_the_deadline_cuts_short_says_so_at_the_head_and_in_the_body() {
    for (answer, code) in [(Answer::Never, None), (Answer::Silence, Some("200"))] {
        let spans = listened(|| async {
            let service = ServiceBuilder::new()
                .layer(TraceLayer::new("greeter"))
                .layer(DeadlineLayer::new(secs(3)))
                .layer(AttemptTraceLayer::new("one"))
                .service(Probe::new(answer));
            if let Ok(response) = service.oneshot(request()).await {
                response.into_body().collect().await.unwrap_err();
            }
        });
        let right = [("0", code, Some("deadline_exceeded"))];
        assert_eq!(outcomes(&spans), right);
        assert_eq!(spans[0].field("error.type"), Some("deadline_exceeded"));
    }
}

#[test]
fn an_attempt_that_its_caller_gave_up_has_no_error_and_a_body_that_broke_has_one() {
    let spans = listened(|| async {
        let stack = |answer| {
            ServiceBuilder::new()
                .layer(DeadlineLayer::new(secs(3)))
                .layer(AttemptTraceLayer::new("one"))
                .service(Probe::new(answer))
        };
        let mut call = Box::pin(stack(Answer::Never).oneshot(request()));
        // The probe is not ready at first.
        for _ in 0..3 {
            assert!(is_pending(&mut call).await);
        }
        drop(call);
        let response = stack(Answer::BodyError("broke")).oneshot(request()).await;
        let body = response.unwrap().into_body();
        body.collect().await.unwrap_err();
    });
    let errors: Vec<_> = spans.iter().map(|span| span.field("error.type")).collect();
    assert_eq!(errors, [None, Some("error")]);
}

/// What a breaker refuses is no attempt.
#[test]
fn inside_of_a_breaker_a_refusal_has_no_span() {
    let spans = listened(|| async {
        let breaker = BreakerLayer::new(BreakerPolicy::new());
        breaker.handle().force_open();
        let probe = Probe::new(Answer::Empty);
        let inside = breaker.layer(AttemptTraceLayer::new("inside").layer(probe.clone()));
        inside.oneshot(request()).await.unwrap_err();
        let outside = AttemptTraceLayer::new("outside").layer(breaker.layer(probe));
        outside.oneshot(request()).await.unwrap_err();
    });
    assert_eq!(
        spans[0].sorted(),
        [
            ("error.type", "breaker_open"),
            ("server.address", "outside")
        ]
    );
    assert_eq!(spans.len(), 1);
}
