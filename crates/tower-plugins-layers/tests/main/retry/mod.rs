//! Retry, through a service whose attempts are scripted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy takes only the test functions themselves for tests"
)]

mod attempts;
mod budget;
mod endpoint_budgets;
mod endpoints;
mod first_frame;
mod hints;
mod model;
mod replay;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use tokio::time::Instant;
use tower::{Service, ServiceExt, service_fn};
use tower_layer::Layer;
use tower_plugins_layers::retry::{Backoff, Budget, BudgetLimits, Jitter, ResponseBody, RetryOn};
use tower_plugins_layers::*;

type Outcome = Result<Response<Full<Bytes>>, BoxError>;

/// What a call of a service that answers so ends in.
type Answered<B = Full<Bytes>> = Result<Response<ResponseBody<B>>, BoxError>;

/// Retries that wait 100, 200, 400 ms, from a budget that does not run out.
fn policy() -> RetryPolicy {
    RetryPolicy::new()
        .backoff(Backoff::new(ms(100), Duration::from_secs(5)).without_jitter())
        .budget(Budget::new(0.0, u32::MAX))
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn request(method: Method) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri("http://plugin/pkg.Greeter/Say?q=1")
        .header("x-one", "1")
        .header("x-many", "2")
        .header("x-many", "3")
        .body(Full::from("hello"))
        .unwrap()
}

fn status(status: u16) -> Outcome {
    Ok(answer(status, &[]))
}

fn answer(status: u16, headers: &[(&str, &str)]) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::from("answer")).unwrap()
}

fn refused(reason: Reason) -> Outcome {
    Err(Refused::new(reason).into())
}

/// What a call came to: its outcome, and when each attempt began.
struct Run<B: Body = Full<Bytes>> {
    outcome: Answered<B>,
    attempts: Vec<Duration>,
    took: Duration,
}

impl<B: Body> Run<B> {
    fn status(&self) -> StatusCode {
        let response = self.outcome.as_ref();
        response.map(Response::status).expect("a response")
    }

    fn reason(&self) -> Option<Reason> {
        Reason::of(&**self.outcome.as_ref().err().expect("an error"))
    }
}

/// One call under `policy`. `attempt` makes the outcome of the n-th attempt, counted from 0.
async fn run<B, F, Fut, RB>(policy: RetryPolicy, request: Request<B>, attempt: F) -> Run<RB>
where
    RB: Body + Unpin,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    F: Fn(usize, Request<ReplayBody<B>>) -> Fut + Clone,
    Fut: Future<Output = Result<Response<RB>, BoxError>>,
{
    let start = Instant::now();
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let journal = Arc::clone(&attempts);
    let inner = service_fn(move |request| {
        let mut attempts = journal.lock().unwrap();
        attempts.push(start.elapsed());
        attempt(attempts.len() - 1, request)
    });
    let outcome = RetryLayer::new(policy).layer(inner).oneshot(request).await;
    Run {
        outcome,
        attempts: Arc::try_unwrap(attempts)
            .map_or_else(|a| a.lock().unwrap().clone(), |a| a.into_inner().unwrap()),
        took: start.elapsed(),
    }
}

/// One call whose attempts all end as `outcome` says.
async fn run_all(
    policy: RetryPolicy,
    request: Request<Full<Bytes>>,
    outcome: impl Fn() -> Outcome + Clone,
) -> Run {
    run(policy, request, move |_, _| std::future::ready(outcome())).await
}

async fn call<S, R>(mut service: S, request: R) -> Result<S::Response, S::Error>
where
    S: Service<R>,
{
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}
