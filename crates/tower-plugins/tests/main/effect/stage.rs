//! Plugins over services of this program, and what these are asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::{ServiceExt, service_fn};
use tower_plugins::config::Config;
use tower_plugins::{Body, Error, Plugins, Reason};

use crate::support::{Shelf, call, channel, config, get, read};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Plugins over the services `one` and `two`, `slow`, which needs a second for an answer, and `never`, which gives none.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) plugins: Plugins,
    desk: Arc<Mutex<Desk>>,
}

/// What the services were asked, and what they are to answer.
#[derive(Default)]
struct Desk {
    seen: Vec<Seen>,
    next: VecDeque<Answer>,
    times: VecDeque<Duration>,
    then: Answer,
}

/// What a service was asked.
pub(super) struct Seen {
    pub(super) service: &'static str,
    pub(super) at: Instant,
    pub(super) request: Request<Bytes>,
}

#[derive(Clone, Copy)]
pub(super) enum Answer {
    Status(u16),
    Never,
}

impl Default for Answer {
    fn default() -> Self {
        Self::Status(200)
    }
}

pub(super) type Outcome = Result<StatusCode, Error>;

impl Stage {
    /// The plugins of a whole config.
    pub(super) async fn start(yaml: &str) -> Self {
        Self::start_with(config(yaml)).await
    }

    /// The plugins of a config that is read.
    pub(super) async fn start_with(config: Config) -> Self {
        let desk = Arc::<Mutex<Desk>>::default();
        let service = |name, time| {
            let desk = Arc::clone(&desk);
            service_fn(move |request| serve(name, time, Arc::clone(&desk), request))
        };
        let plugins = Plugins::builder()
            .service("one", service("one", Duration::ZERO))
            .service("two", service("two", Duration::ZERO))
            .service("slow", service("slow", SECOND))
            .service("never", service("never", Duration::MAX))
            .layer_named("mark", super::layer::mark)
            .start(config)
            .await
            .unwrap();
        Self { plugins, desk }
    }

    /// One plugin, `p`, at the service `one`, with further keys.
    pub(super) async fn of(keys: &str) -> Self {
        Self::start(&format!(
            "plugins: {{ p: {{ transport: in-process, endpoint: one, {keys} }} }}"
        ))
        .await
    }

    /// Two plugins at the service `one`: `p` without further keys and `q` with `keys`, under `root`.
    pub(super) async fn pair(root: &str, keys: &str) -> Self {
        Self::start(&format!(
            "{{ {root} plugins: {{
                p: {{ transport: in-process, endpoint: one }},
                q: {{ transport: in-process, endpoint: one, {keys} }}
            }} }}"
        ))
        .await
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap()
    }

    /// From now on, every call is answered so.
    pub(super) fn answers(&self, answer: Answer) -> &Self {
        self.desk().then = answer;
        self
    }

    /// The next calls are answered so.
    pub(super) fn next(&self, answers: impl IntoIterator<Item = Answer>) -> &Self {
        self.desk().next.extend(answers);
        self
    }

    /// The next calls take so long.
    pub(super) fn takes(&self, times: impl IntoIterator<Item = Duration>) {
        self.desk().times.extend(times);
    }

    /// What was seen since this was last asked.
    pub(super) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.desk().seen)
    }

    /// The times between what was seen since this was last asked.
    pub(super) fn gaps(&self) -> Vec<Duration> {
        let seen = self.seen();
        let pairs = seen.windows(2);
        pairs.map(|pair| pair[1].at - pair[0].at).collect()
    }

    /// Calls the plugin `name`, in whatever time it takes up to a day.
    pub(super) async fn send(
        &self,
        name: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, Error> {
        let call = self.plugins.plugin(name).oneshot(request);
        let day = Duration::from_secs(24 * 3600);
        let outcome = tokio::time::timeout(day, call).await;
        outcome.expect("no timeout here is longer")
    }

    /// Calls the plugin `name`, and reads the answer to its end.
    async fn call_of(&self, name: &str) -> Outcome {
        let response = self.send(name, get("/")).await?;
        let status = response.status();
        read(response).await;
        Ok(status)
    }

    /// Calls `p`, and reads the answer to its end.
    pub(super) async fn call(&self) -> Outcome {
        self.call_of("p").await
    }

    /// Why a call of `p` fails.
    pub(super) async fn refusal(&self) -> Option<Reason> {
        self.call().await.unwrap_err().reason()
    }

    /// Of so many calls of `name`, one after the other: how often the service was asked.
    pub(super) async fn asked_by(&self, name: &str, calls: usize) -> usize {
        self.seen();
        for _ in 0..calls {
            // Refused or answered: what counts is whether the service saw it.
            let _ = self.call_of(name).await;
        }
        self.seen().len()
    }

    /// As [`asked_by`](Self::asked_by), for `p`.
    pub(super) async fn asked(&self, calls: usize) -> usize {
        self.asked_by("p", calls).await
    }

    /// Of so many calls of `name`, one after the other: how many went to the service `slow`.
    pub(super) async fn share_of_slow(&self, name: &str, calls: usize) -> usize {
        for _ in 0..calls {
            self.call_of(name).await.unwrap();
        }
        let seen = self.seen();
        seen.iter().filter(|seen| seen.service == "slow").count()
    }

    /// So many calls of `name` at once.
    pub(super) fn at_once(&self, name: &'static str, calls: usize) -> JoinSet<Outcome> {
        let calls = (0..calls).map(|_| {
            let stage = self.clone();
            async move { stage.call_of(name).await }
        });
        calls.collect()
    }
}

async fn serve(
    service: &'static str,
    time: Duration,
    desk: Arc<Mutex<Desk>>,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let (answer, time) = {
        let mut desk = desk.lock().unwrap();
        desk.seen.push(Seen {
            service,
            at: Instant::now(),
            request: Request::from_parts(parts, body),
        });
        let answer = desk.next.pop_front().unwrap_or(desk.then);
        (answer, desk.times.pop_front().unwrap_or(time))
    };
    let Answer::Status(status) = answer else {
        return std::future::pending().await;
    };
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
    let mut response = Response::new(service.into());
    let name = HeaderValue::from_static(service);
    response.headers_mut().insert("x-service", name);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(response)
}

/// Why the first `count` of `calls` to fail have failed.
pub(super) async fn refusals(calls: &mut JoinSet<Outcome>, count: usize) -> Vec<Reason> {
    let mut reasons = Vec::new();
    while reasons.len() < count {
        let outcome = calls.join_next().await.unwrap().unwrap();
        reasons.extend(outcome.err().map(|error| error.reason().unwrap()));
    }
    reasons
}

/// Has a call of `p` under way when a reload removes it, and says after which time it was cancelled.
pub(super) async fn cancelled_after(root: &str, keys: &str) -> Duration {
    let shelf = Shelf::default();
    let plugins = shelf
        .start(&format!(
            "{{ {root} plugins: {{ p: {{ transport: in-process, endpoint: shelf, {keys} connection: {{ request_timeout: off }} }} }} }}"
        ))
        .await;
    let (_frames, body) = channel();
    shelf.put(body);
    let response = call(&plugins.plugin("p"), get("/")).await.unwrap();
    let reader = tokio::spawn(response.into_body().collect());
    let report = plugins.reload(Config::default()).await.unwrap();
    let retired = report.retirement.wait().await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (1, 0));
    assert!(reader.await.unwrap().is_err());
    retired[0].elapsed
}
