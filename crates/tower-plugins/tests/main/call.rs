//! Typed calls, as a server sees them and as their callers do.

mod envelope;
mod outcome;
mod wire;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use http::{HeaderMap, HeaderValue, Method as HttpMethod, Response, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use tower_plugins::call::{Codec, DecodeError, Envelope, Method};
use tower_plugins::{Blame, Body, Error, Plugin, Plugins, Reason};

use crate::support::{causes, channel, config, within};

#[derive(Serialize)]
struct Check {
    token: &'static str,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Verdict {
    allowed: bool,
}

static CHECK: Method<Check, Verdict> = Method::post("/v1/check");
static IDEMPOTENT: Method<Check, Verdict> = Method::post("/v1/check").idempotent();
static PING: Method<(), ()> = Method::get("/ping?deep=1");

fn enveloped<Req, Res>() -> Method<Req, Res, Envelope>
where
    Envelope: Codec<Req, Res>,
{
    Method::with_codec(HttpMethod::POST, "/run", Envelope)
}

static TOKEN: Check = Check { token: "t" };

struct Seen {
    method: HttpMethod,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Clone, Default)]
struct Desk {
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<VecDeque<Response<Body>>>>,
}

/// An axum server that answers as it is told, and otherwise with an empty 200.
struct Served {
    desk: Desk,
    plugins: Plugins,
    plugin: Plugin,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Served {
    async fn start(keys: &str) -> Self {
        async fn answer(
            State(desk): State<Desk>,
            method: HttpMethod,
            uri: Uri,
            headers: HeaderMap,
            body: Bytes,
        ) -> Response<Body> {
            desk.seen.lock().unwrap().push(Seen {
                method,
                uri,
                headers,
                body,
            });
            let answer = desk.answers.lock().unwrap().pop_front();
            answer.unwrap_or_default()
        }
        let desk = Desk::default();
        let app = Router::new().fallback(answer).with_state(desk.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let config = config(&format!(
            "plugins: {{ p: {{ transport: http, endpoint: \"http://{address}\", {keys} }} }}"
        ));
        let plugins = Plugins::builder().start(config).await.unwrap();
        let plugin = plugins.plugin("p");
        Self {
            desk,
            plugins,
            plugin,
            server,
        }
    }

    fn answers(&self, status: u16, body: impl Into<Body>) -> &Self {
        let mut answer = Response::new(body.into());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        self.desk.answers.lock().unwrap().push_back(answer);
        self
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.desk.seen.lock().unwrap())
    }

    async fn check(&self) -> Result<Verdict, Error> {
        within(self.plugin.invoke(&CHECK, &TOKEN).into_future()).await
    }
}

const QUICK: &str = "retry: { initial_interval: 1ms, max_interval: 1ms }";
