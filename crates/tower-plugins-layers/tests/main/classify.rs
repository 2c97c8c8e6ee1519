//! What the ends of calls say, by the statuses and codes of a policy.

use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::{Value, from_value, json, to_value};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};
use tower_plugins_layers::breaker::{BreakerPolicy, BreakerState};
use tower_plugins_layers::classify::{Classify, ClassifyPolicy, HttpGrpc, Outcome};
use tower_plugins_layers::test_util::ScriptedBody;
use tower_plugins_layers::{
    BoxError, BreakerLayer, CallContext, End, LoadLayer, OutlierDetector, OutlierPolicy, Reason,
    Refused,
};

/// A gRPC head, or trailers, with this status.
fn grpc(code: &str) -> HeaderMap {
    HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
        (
            "grpc-status".parse().unwrap_or(CONTENT_TYPE),
            HeaderValue::from_str(code).unwrap_or(HeaderValue::from_static("?")),
        ),
    ])
}

fn statuses() -> impl Iterator<Item = StatusCode> {
    (100..=999).filter_map(|status| StatusCode::from_u16(status).ok())
}

fn of_status(classify: &impl Classify, status: StatusCode) -> Option<Outcome> {
    classify.head(status, &HeaderMap::new())
}

fn of_code(classify: &impl Classify, code: &str) -> Outcome {
    let headers = grpc(code);
    let head = classify.head(StatusCode::OK, &headers);
    let end = classify.end(&End::Complete(Some(&headers)));
    assert_eq!(head, Some(end), "{code}");
    end
}

#[test]
fn the_usual_reading_is_that_of_the_table() {
    for policy in [ClassifyPolicy::new(), ClassifyPolicy::default()] {
        for status in statuses() {
            let expected = match status.as_u16() {
                101 | 501 | 505 => Some(Outcome::Success),
                429 => Some(Outcome::Overloaded),
                500..=599 => Some(Outcome::Failure),
                _ => None,
            };
            assert_eq!(of_status(&HttpGrpc, status), expected, "{status}");
            assert_eq!(of_status(&policy, status), expected, "{status}");
        }
        for (code, expected) in [
            ("0", Outcome::Success),
            ("1", Outcome::Ignored),
            ("2", Outcome::Failure),
            ("3", Outcome::Success),
            ("4", Outcome::Failure),
            ("8", Outcome::Overloaded),
            ("12", Outcome::Success),
            ("13", Outcome::Failure),
            ("14", Outcome::Failure),
            ("15", Outcome::Failure),
            ("16", Outcome::Success),
            ("17", Outcome::Success),
            ("142", Outcome::Success),
            ("", Outcome::Failure),
            ("x", Outcome::Failure),
        ] {
            assert_eq!(of_code(&HttpGrpc, code), expected, "{code}");
            assert_eq!(of_code(&policy, code), expected, "{code}");
        }
        assert_eq!(policy.end(&End::Complete(None)), Outcome::Success);
    }
}

#[test]
fn failures_are_the_statuses_that_a_policy_names_and_no_others() {
    let named = [400, 404, 429, 499, 503, 600, 655];
    // What cannot be one is passed over.
    let policy = ClassifyPolicy::new().failure_statuses(named.into_iter().chain([101, 399, 656]));
    for status in statuses() {
        let expected = match status.as_u16() {
            status if named.contains(&status) => Some(Outcome::Failure),
            101 | 500..=599 => Some(Outcome::Success),
            _ => None,
        };
        assert_eq!(of_status(&policy, status), expected, "{status}");
    }
    assert_eq!(of_code(&policy, "14"), Outcome::Failure, "as before");
}

#[test]
fn failures_are_the_grpc_codes_that_a_policy_names_and_no_others() {
    let named = [1, 5, 8, 16];
    let policy =
        ClassifyPolicy::new().failure_grpc_codes(named.into_iter().chain([0, 17, 32, 255]));
    for code in 0..40 {
        let expected = if named.contains(&code) {
            Outcome::Failure
        } else {
            Outcome::Success
        };
        assert_eq!(of_code(&policy, &code.to_string()), expected, "{code}");
    }
    assert_eq!(of_code(&policy, "x"), Outcome::Failure);
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(of_status(&policy, unavailable), Some(Outcome::Failure));
}

#[test]
fn errors_are_judged_as_ever_whatever_a_policy_names() {
    let policy = ClassifyPolicy::new()
        .failure_statuses([])
        .failure_grpc_codes([]);
    for reason in Reason::ALL {
        let error: BoxError = Refused::new(reason).into();
        assert_eq!(policy.error(&*error), HttpGrpc.error(&*error), "{reason}");
        assert_eq!(policy.end(&End::Error(&*error)), HttpGrpc.error(&*error));
    }
}

fn read(text: Value) -> Result<ClassifyPolicy, String> {
    from_value(text).map_err(|error| error.to_string())
}

#[test]
fn a_policy_is_read_as_it_is_written_and_what_is_absent_is_the_default() {
    assert_eq!(read(json!({})), Ok(ClassifyPolicy::new()));
    let usual = json!({
        "failure_statuses": [500, "502-504", "506-599"],
        "failure_grpc_codes": ["unknown", "deadline-exceeded", "internal", "unavailable", "data-loss"],
    });
    assert_eq!(to_value(ClassifyPolicy::new()).ok(), Some(usual.clone()));
    assert_eq!(read(usual), Ok(ClassifyPolicy::new()));
    let policy = ClassifyPolicy::new()
        .failure_statuses([400, 401, 655])
        .failure_grpc_codes([16, 7]);
    let text = json!({
        "failure_statuses": [655, "400-401", "400-400"],
        "failure_grpc_codes": [7, "unauthenticated"],
    });
    assert_eq!(read(text), Ok(policy));
    let none = json!({ "failure_statuses": [], "failure_grpc_codes": [] });
    assert_eq!(
        read(none.clone())
            .and_then(|policy| { to_value(policy).map_err(|error| error.to_string()) }),
        Ok(none)
    );
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_with_what_to_write() {
    for (text, says) in [
        (json!({"failure_statuses": [200]}), "200 is no status"),
        (json!({"failure_statuses": ["500-700"]}), "from 400 to 655"),
        (
            json!({"failure_statuses": ["504-502"]}),
            "such as \"502-504\"",
        ),
        (json!({"failure_statuses": ["5xx"]}), "\"5xx\" is no status"),
        (json!({"failure_statuses": [-1]}), "did not match"),
        (json!({"failure_grpc_codes": [0]}), "0 is no gRPC code"),
        (json!({"failure_grpc_codes": [17]}), "from 1 to 16"),
        (
            json!({"failure_grpc_codes": ["gone"]}),
            "\"gone\" is no gRPC code",
        ),
        (json!({"statuses": []}), "unknown field"),
    ] {
        let error = read(text.clone()).expect_err("nonsense");
        assert!(error.contains(says), "{text}: {error}");
    }
}

/// How an endpoint says that the time was over.
#[derive(Clone, Copy, Debug)]
enum Over {
    Head,
    Trailers,
    Status,
}

impl Over {
    fn answer(self) -> Response<ScriptedBody> {
        let (mut response, code) = match self {
            Self::Head => (Response::new(ScriptedBody::frames([])), Some("4")),
            Self::Trailers => {
                let trailers = http_body::Frame::trailers(grpc("4"));
                (Response::new(ScriptedBody::new([Some(Ok(trailers))])), None)
            }
            Self::Status => (Response::new(ScriptedBody::frames([])), None),
        };
        if let Some(code) = code {
            *response.headers_mut() = grpc(code);
        }
        if let Self::Status = self {
            *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
        }
        response
    }

    /// A call whose caller waits so long is answered so.
    async fn tell<L>(self, layer: &L, waits: Duration)
    where
        L: Layer<Told, Service: Service<Request<()>, Error = BoxError>>,
        <L::Service as Service<Request<()>>>::Response: Bodied,
    {
        let mut request = Request::new(());
        let own = Instant::now() + waits;
        let context = CallContext::new().own_deadline(own);
        request.extensions_mut().insert(context);
        let service = layer.layer(Told(self));
        let response = service.oneshot(request).await.expect("an answer");
        response.read().await;
    }
}

/// Answers so.
#[derive(Clone)]
struct Told(Over);

impl Service<Request<()>> for Told {
    type Response = Response<ScriptedBody>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Response<ScriptedBody>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        std::future::ready(Ok(self.0.answer()))
    }
}

/// A response that is read to its end.
trait Bodied {
    fn read(self) -> impl Future<Output = ()>;
}

impl<B: http_body::Body> Bodied for Response<B> {
    async fn read(self) {
        let _ = self.into_body().collect().await;
    }
}

#[tokio::test(start_paused = true)]
async fn that_the_time_of_a_caller_in_a_hurry_was_over_says_nothing_of_the_endpoint() {
    for over in [Over::Head, Over::Trailers, Over::Status] {
        for (millis, counts) in [(5, false), (99, false), (100, true)] {
            let waits = Duration::from_millis(millis);
            let policy = BreakerPolicy::new().consecutive_failures(1);
            let breaker = BreakerLayer::new(policy);
            over.tell(&breaker, waits).await;
            let open = breaker.handle().state() == BreakerState::Open;
            assert_eq!(open, counts, "breaker, {over:?}, {millis} ms");

            let policy = OutlierPolicy::new()
                .consecutive_failures(1)
                .max_ejection_percent(100);
            let outlier = OutlierDetector::new(policy).endpoint("one");
            over.tell(&outlier, waits).await;
            let out = outlier.is_ejected(Instant::now());
            assert_eq!(out, counts, "outlier, {over:?}, {millis} ms");

            let load = LoadLayer::new();
            over.tell(&load, waits).await;
            let slow = load.load().rtt(Instant::now()) > Duration::from_secs(1);
            assert_eq!(slow, counts, "load, {over:?}, {millis} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_response_that_ends_without_a_status_has_failed() {
    for (kind, fails) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc-web", false),
        ("text/plain", false),
    ] {
        for messages in [0, 1] {
            let service = tower::service_fn(|_: Request<()>| {
                let response = Response::builder().header(CONTENT_TYPE, kind);
                let body =
                    ScriptedBody::new((0..messages).map(|_| Some(Ok(Frame::data("one".into())))));
                std::future::ready(response.body(body).map_err(BoxError::from))
            });
            let policy = BreakerPolicy::new().consecutive_failures(1);
            let breaker = BreakerLayer::new(policy);
            let policy = OutlierPolicy::new()
                .consecutive_failures(1)
                .max_ejection_percent(100);
            let outlier = OutlierDetector::new(policy).endpoint("one");
            let service = outlier.layer(breaker.layer(service));
            let response = service.oneshot(Request::new(())).await.expect("an answer");
            response.read().await;
            let open = breaker.handle().state() == BreakerState::Open;
            assert_eq!(open, fails, "breaker, {kind}");
            assert_eq!(outlier.is_ejected(Instant::now()), fails, "outlier, {kind}");
        }
    }
}
