//! A plugin whose endpoints are asked how they are, and remember it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::{Instant, sleep};
use tower::{ServiceExt, service_fn};
use tower_plugins::{Body, EndpointHealth, Error, HealthStatus, Plugins};

use crate::support::{config, get};

/// The plugin `p` at the services `s0`, `s1`, and so on.
pub(crate) struct Checked {
    pub(crate) plugins: Plugins,
    endpoints: Vec<Arc<Mutex<Endpoint>>>,
}

pub(crate) struct Endpoint {
    begun: Instant,
    /// What it answers.
    pub(crate) status: u16,
    /// How long a check takes.
    pub(crate) takes: Duration,
    /// What it says of itself.
    pub(crate) says: Vec<u8>,
    asked: Vec<Asked>,
    under_way: usize,
    most_under_way: usize,
    calls: usize,
}

struct Asked {
    at: Instant,
    question: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A message of `grpc.health.v1` with this status, as it stands on the wire.
pub(crate) fn serving(status: u8) -> Vec<u8> {
    match status {
        0 => vec![0; 5],
        status => vec![0, 0, 0, 0, 2, 8, status],
    }
}

/// A gRPC response with `messages`, which has ended well.
pub(crate) fn grpc(messages: Vec<u8>) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames = [Frame::data(messages.into()), Frame::trailers(trailers)];
    let frames = frames.map(Ok::<_, Infallible>);
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(StreamBody::new(futures_util::stream::iter(
            frames,
        ))))
        .unwrap()
}

fn yaml(root: &str, endpoints: usize, keys: &str) -> String {
    let ends: Vec<_> = (0..endpoints).map(|n| format!("s{n}")).collect();
    let balancing = if keys.contains("load_balancing") {
        ""
    } else {
        "load_balancing: { strategy: round-robin },"
    };
    format!(
        "{{ {root} plugins: {{ p: {{ transport: in-process, endpoints: [{}], retry: off, circuit_breaker: off,
            {balancing} {keys} }} }} }}",
        ends.join(", ")
    )
}

impl Checked {
    pub(crate) async fn of(endpoints: usize, keys: &str) -> Self {
        Self::under("", endpoints, keys).await
    }

    /// Endpoints that are so at the first check: what `of` gives is too late for that.
    pub(crate) async fn first(
        endpoints: usize,
        keys: &str,
        begin: impl Fn(usize, &mut Endpoint),
    ) -> Self {
        let begin = |n: usize, endpoint: &Arc<Mutex<Endpoint>>| {
            begin(n, &mut endpoint.lock().unwrap());
        };
        let yaml = yaml("", endpoints, keys);
        Self::start(endpoints, &yaml, begin).await.unwrap()
    }

    pub(crate) async fn under(root: &str, endpoints: usize, keys: &str) -> Self {
        let yaml = yaml(root, endpoints, keys);
        Self::start(endpoints, &yaml, |_, _| ()).await.unwrap()
    }

    /// One that is not well until `later`, if that comes.
    pub(crate) async fn sick(keys: &str, later: Option<Duration>) -> Result<Self, Error> {
        let begin = |_: usize, endpoint: &Arc<Mutex<Endpoint>>| {
            endpoint.lock().unwrap().status = 503;
            if let Some(later) = later {
                let endpoint = Arc::clone(endpoint);
                tokio::spawn(async move {
                    sleep(later).await;
                    endpoint.lock().unwrap().status = 200;
                });
            }
        };
        Self::start(1, &yaml("", 1, keys), begin).await
    }

    async fn start(
        endpoints: usize,
        yaml: &str,
        begin: impl Fn(usize, &Arc<Mutex<Endpoint>>),
    ) -> Result<Self, Error> {
        let mut builder = Plugins::builder();
        let mut all = Vec::new();
        for n in 0..endpoints {
            let endpoint = Arc::new(Mutex::new(Endpoint {
                begun: Instant::now(),
                status: 200,
                takes: Duration::ZERO,
                says: serving(1),
                asked: Vec::new(),
                under_way: 0,
                most_under_way: 0,
                calls: 0,
            }));
            begin(n, &endpoint);
            all.push(Arc::clone(&endpoint));
            let service = service_fn(move |request: Request<Body>| {
                let endpoint = Arc::clone(&endpoint);
                async move { Ok::<_, Infallible>(answer(&endpoint, request).await) }
            });
            builder = builder.service(&format!("s{n}"), service);
        }
        Ok(Self {
            plugins: builder.start(config(yaml)).await?,
            endpoints: all,
        })
    }

    /// From now on the plugin has so many endpoints, and `keys`.
    pub(crate) async fn reload(&self, endpoints: usize, keys: &str) {
        let config = config(&yaml("", endpoints, keys));
        self.plugins.reload(config).await.unwrap();
    }

    fn endpoint(&self, endpoint: usize) -> std::sync::MutexGuard<'_, Endpoint> {
        self.endpoints[endpoint].lock().unwrap()
    }

    /// From now on the endpoint answers so.
    pub(crate) fn answers(&self, endpoint: usize, status: u16) {
        self.endpoint(endpoint).status = status;
    }

    /// From now on a check of it takes so long.
    pub(crate) fn takes(&self, endpoint: usize, time: Duration) {
        self.endpoint(endpoint).takes = time;
    }

    /// How long after the start it was asked.
    pub(crate) fn times(&self, endpoint: usize) -> Vec<Duration> {
        let endpoint = self.endpoint(endpoint);
        let asked = endpoint.asked.iter();
        asked.map(|asked| asked.at - endpoint.begun).collect()
    }

    /// The same, in seconds.
    pub(crate) fn asked(&self, endpoint: usize) -> Vec<u64> {
        self.times(endpoint).iter().map(Duration::as_secs).collect()
    }

    pub(crate) fn questions(&self, endpoint: usize) -> Vec<String> {
        let endpoint = self.endpoint(endpoint);
        let asked = endpoint.asked.iter();
        asked.map(|asked| asked.question.clone()).collect()
    }

    /// What each check said in `header`.
    pub(crate) fn headers(&self, endpoint: usize, header: &str) -> Vec<String> {
        let endpoint = self.endpoint(endpoint);
        let value = |asked: &Asked| {
            let value = asked.headers.get(header);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        endpoint.asked.iter().map(value).collect()
    }

    /// The body of the last check.
    pub(crate) fn body(&self, endpoint: usize) -> Bytes {
        self.endpoint(endpoint).asked.last().unwrap().body.clone()
    }

    /// The most checks that were under way at a time.
    pub(crate) fn most_at_once(&self, endpoint: usize) -> usize {
        self.endpoint(endpoint).most_under_way
    }

    pub(crate) fn status(&self) -> HealthStatus {
        self.plugins.plugin("p").health().unwrap().status
    }

    pub(crate) fn endpoints(&self) -> Vec<EndpointHealth> {
        self.plugins.plugin("p").health().unwrap().endpoints
    }

    pub(crate) fn statuses(&self) -> Vec<HealthStatus> {
        let endpoints = self.endpoints();
        endpoints.iter().map(|endpoint| endpoint.status).collect()
    }

    /// Makes so many calls; says how many each endpoint got.
    pub(crate) async fn calls(&self, calls: usize) -> Vec<usize> {
        for endpoint in &self.endpoints {
            endpoint.lock().unwrap().calls = 0;
        }
        for _ in 0..calls {
            self.plugins
                .plugin("p")
                .oneshot(get("/call"))
                .await
                .unwrap();
        }
        let endpoints = self.endpoints.iter();
        endpoints.map(|end| end.lock().unwrap().calls).collect()
    }
}

struct UnderWay<'a>(&'a Mutex<Endpoint>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().under_way -= 1;
    }
}

async fn answer(endpoint: &Mutex<Endpoint>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let status = StatusCode::from_u16(endpoint.lock().unwrap().status).unwrap();
    if head.uri.path() == "/call" {
        endpoint.lock().unwrap().calls += 1;
        return Response::builder()
            .status(status)
            .body(Body::empty())
            .unwrap();
    }
    let body = body.collect().await.unwrap().to_bytes();
    let takes = {
        let mut endpoint = endpoint.lock().unwrap();
        endpoint.asked.push(Asked {
            at: Instant::now(),
            question: format!("{} {}", head.method, head.uri),
            headers: head.headers,
            body,
        });
        endpoint.under_way += 1;
        endpoint.most_under_way = endpoint.most_under_way.max(endpoint.under_way);
        endpoint.takes
    };
    let _under_way = UnderWay(endpoint);
    sleep(takes).await;
    let (status, says) = {
        let endpoint = endpoint.lock().unwrap();
        (endpoint.status, endpoint.says.clone())
    };
    if head.uri.path().starts_with("/grpc") {
        return grpc(says);
    }
    let status = StatusCode::from_u16(status).unwrap();
    Response::builder()
        .status(status)
        .body(Body::empty())
        .unwrap()
}
