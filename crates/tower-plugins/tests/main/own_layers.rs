//! Layers of the program's own in a plugin's stack.

mod foreign;
mod named;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode};
use tower::util::MapRequestLayer;
use tower::{Service, service_fn};
use tower_plugins::{Body, Builder, Next, Place, Plugins, Reason};
use tower_plugins_layers::{BoxError, ConcurrencyLayer, RateLimitLayer, Refused, Unsent};

use crate::support::{call, causes, config, get, post, text};

const ONE: &str = "plugins: [{ name: p, transport: in-process, endpoint: s }]";

type Count = Arc<AtomicU32>;

/// Appends `word` to a header of each request, and counts the requests.
fn mark(
    word: &'static str,
    count: &Count,
) -> MapRequestLayer<impl Fn(Request<Body>) -> Request<Body> + Clone + Send + Sync + use<>> {
    let count = Arc::clone(count);
    MapRequestLayer::new(move |mut request: Request<Body>| {
        count.fetch_add(1, Ordering::Relaxed);
        let headers = request.headers_mut();
        headers.append("mark", HeaderValue::from_static(word));
        request
    })
}

/// Answers with the marks of its request, in order.
fn marks() -> Builder {
    Plugins::builder().service(
        "s",
        service_fn(|request: Request<Body>| async move {
            let marks = request.headers().get_all("mark").iter();
            let marks: Vec<_> = marks.map(|mark| mark.to_str().unwrap()).collect();
            Ok::<_, Infallible>(Response::new(Body::from(marks.join(" "))))
        }),
    )
}

#[tokio::test]
async fn the_first_of_a_place_is_outermost_and_calls_come_before_attempts() {
    let count = Count::default();
    let plugins = marks()
        .layer(Place::Attempt, "c", mark("c", &count))
        .layer(Place::Call, "a", mark("a", &count))
        .layer(Place::Call, "b", mark("b", &count))
        .layer(Place::Attempt, "d", mark("d", &count));
    let plugins = plugins.start(config(ONE)).await.unwrap();
    let said = text(&plugins.plugin("p"), get("/")).await.unwrap();
    assert_eq!(said, "a b c d");
}

#[tokio::test]
async fn a_layer_of_one_plugin_is_in_no_others_stack() {
    let count = Count::default();
    let plugins = marks()
        .layer_of("p", Place::Call, "p", mark("p", &count))
        .start(config(
            "plugins:
              - { name: p, transport: in-process, endpoint: s }
              - { name: q, transport: in-process, endpoint: s }",
        ))
        .await
        .unwrap();
    assert_eq!(text(&plugins.plugin("p"), get("/")).await.unwrap(), "p");
    assert_eq!(text(&plugins.plugin("q"), get("/")).await.unwrap(), "");
}

/// Ends two calls as `first` says, and then answers.
fn twice(first: fn(Request<Body>) -> Result<Response<Body>, BoxError>) -> Builder {
    let calls = Count::default();
    Plugins::builder().service(
        "s",
        service_fn(move |request: Request<Body>| {
            let done = calls.fetch_add(1, Ordering::Relaxed) >= 2;
            let mark = request.headers().get_all("mark").iter().count();
            let answer = Response::new(Body::from(format!("{mark} marks")));
            std::future::ready(if done { Ok(answer) } else { first(request) })
        }),
    )
}

const RETRIED: &str = "
plugins:
  - name: p
    transport: in-process
    endpoint: s
    retry: { max_retries: 2, initial_interval: 1ms, max_interval: 1ms }
    circuit_breaker: { enabled: false }
";

#[tokio::test]
async fn an_attempts_layer_acts_on_each_attempt_and_a_calls_once() {
    let (calls, attempts) = (Count::default(), Count::default());
    let unavailable = |_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok(response)
    };
    let plugins = twice(unavailable)
        .layer(Place::Call, "calls", mark("call", &calls))
        .layer(Place::Attempt, "attempts", mark("attempt", &attempts))
        .start(config(RETRIED))
        .await
        .unwrap();
    // Retry keeps the request as it was outside of the attempt's layer.
    let said = text(&plugins.plugin("p"), get("/")).await.unwrap();
    assert_eq!(said, "2 marks");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_request_that_was_never_sent_goes_again_through_an_attempts_layer() {
    let unsent = |request| {
        let cause = Refused::new(Reason::ConnectFailed);
        Err(Unsent::new(Some(request), cause).into())
    };
    let attempts = Count::default();
    let plugins = twice(unsent)
        .layer(Place::Attempt, "attempts", mark("attempt", &attempts))
        .start(config(RETRIED))
        .await
        .unwrap();
    // Not idempotent: only what came back can go again, and it comes back with the layer's marks.
    let said = text(&plugins.plugin("p"), post("/", "body")).await.unwrap();
    assert_eq!(said, "3 marks");
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_layer_of_this_project_keeps_its_state_over_a_reload() {
    let plugins = marks().layer(Place::Call, "limit", RateLimitLayer::new(0.001, 2));
    let plugins = plugins.start(config(ONE)).await.unwrap();
    let plugin = plugins.plugin("p");
    assert!(call(&plugin, get("/")).await.is_ok());
    let changed = ONE.replace("endpoint: s", "endpoint: s, drain_timeout: 7s");
    plugins.reload(config(&changed)).await.unwrap();
    assert!(call(&plugin, get("/")).await.is_ok());
    let error = call(&plugin, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::RateLimited));
    assert!(error.retry_after().is_some());
}

#[tokio::test]
async fn a_call_is_over_for_a_layer_when_its_response_is_read() {
    let plugins = Plugins::builder()
        .service(
            "s",
            service_fn(|_: Request<Body>| async {
                Ok::<_, Infallible>(Response::new(Body::from("a body")))
            }),
        )
        .layer(Place::Call, "places", ConcurrencyLayer::new(1))
        .start(config(ONE))
        .await
        .unwrap();
    let plugin = plugins.plugin("p");
    let first = call(&plugin, get("/")).await.unwrap();
    assert_eq!(plugins.active_requests("p"), 1);
    let error = call(&plugin, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConcurrencyLimited));
    drop(first);
    assert_eq!(plugins.active_requests("p"), 0);
    assert!(call(&plugin, get("/")).await.is_ok());
}

/// A layer whose service is ready late, or never.
#[derive(Clone)]
struct Late {
    patience: u32,
    inner: Next,
}

impl Service<Request<Body>> for Late {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = <Next as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self.patience {
            0 => Poll::Ready(Err("never ready".into())),
            1 => self.inner.poll_ready(cx),
            _ => {
                self.patience -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert_eq!(self.patience, 1, "called before it was ready");
        self.inner.call(request)
    }
}

#[tokio::test]
async fn readiness_is_waited_for_and_fails_inside_the_call() {
    for place in [Place::Call, Place::Attempt] {
        for patience in [0, 1, 5] {
            let late = tower::layer::layer_fn(move |inner| Late { patience, inner });
            let plugins = marks().layer(place, "late", late);
            let plugins = plugins.start(config(ONE)).await.unwrap();
            let result = call(&plugins.plugin("p"), get("/")).await;
            match patience {
                0 => assert!(causes(&result.unwrap_err()).contains("never ready")),
                _ => assert_eq!(result.unwrap().status(), 200),
            }
        }
    }
}

#[tokio::test]
async fn a_panic_of_a_layer_is_the_calls_error_and_names_the_layer() {
    let broken = tower::layer::layer_fn(|_: Next| {
        service_fn(|_: Request<Body>| async {
            panic!("out of cheese");
            #[allow(unreachable_code, reason = "says the type")]
            Ok::<Response<Body>, Infallible>(Response::default())
        })
    });
    let plugins = marks().layer(Place::Call, "cheese", broken);
    let plugins = plugins.start(config(ONE)).await.unwrap();
    let error = call(&plugins.plugin("p"), get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Panicked));
    assert!(causes(&error).contains("cheese panicked: out of cheese"));
}

/// Waits in a layer are within the deadline at `Attempt`, and outside of it at `Call`.
#[tokio::test(start_paused = true)]
async fn a_calls_layer_is_outside_of_the_deadline_and_an_attempts_inside() {
    let slow = tower::layer::layer_fn(|inner: Next| {
        service_fn(move |request: Request<Body>| {
            let mut inner = inner.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(3)).await;
                inner.call(request).await
            }
        })
    });
    let bounded = ONE.replace(
        "endpoint: s",
        "endpoint: s, connection: { request_timeout: 2s }",
    );
    for (place, reason) in [
        (Place::Call, None),
        (Place::Attempt, Some(Reason::DeadlineExceeded)),
    ] {
        let plugins = marks().layer(place, "slow", slow);
        let plugins = plugins.start(config(&bounded)).await.unwrap();
        let result = call(&plugins.plugin("p"), get("/")).await;
        assert_eq!(
            result.err().and_then(|error| error.reason()),
            reason,
            "{place:?}"
        );
    }
}
