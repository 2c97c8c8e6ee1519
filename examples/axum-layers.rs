//! An axum app with a stack of layers around its routes, and a breaker around what it calls itself.
//!
//! `cargo run --example axum-layers` starts the app on a free port, asks it for things, says what
//! happens and ends. To ask for yourself, keep it running:
//!
//! ```sh
//! cargo run --example axum-layers -- --serve 127.0.0.1:3000
//! curl -i localhost:3000/hello                          # 200
//! curl -i localhost:3000/slow                           # 504 after a second
//! curl -i -H 'x-request-timeout: 200ms' localhost:3000/slow  # 504 after 0.2 s
//! curl -i -X POST localhost:3000/storm                  # from now on the forecast is broken
//! for i in 1 2 3 4; do curl -i localhost:3000/forecast; done # 500, 500, 500, and 503 at once
//! curl -i -X POST localhost:3000/calm
//! for i in $(seq 40); do curl -s -o /dev/null -w '%{http_code} ' localhost:3000/hello; done # 429 in the end
//! ```
//!
//! Ctrl-C drains it: calls under way end, new ones are refused.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, Request, Response, StatusCode};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};
use tower_plugins_layers::breaker::{BreakerHandle, BreakerPolicy};
use tower_plugins_layers::{
    BreakerLayer, ConcurrencyLayer, DeadlineLayer, DrainHandle, DrainLayer, RateLimitLayer,
    RespondLayer, TraceLayer,
};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The reason for a refusal, for those who look at the responses.
const REASON: HeaderName = HeaderName::from_static("x-refused-reason");
const TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

/// The layers around all routes, the first outermost.
fn app(forecast: Forecast, weather: Arc<Weather>, drain: &DrainHandle) -> Router {
    let layers = ServiceBuilder::new()
        // Layers refuse by errors, and axum wants none: this makes them 429, 503 and 504.
        .layer(RespondLayer::new().reason_header(REASON))
        // Metrics and spans of each call; refusals of the layers below are seen as what they are.
        .layer(TraceLayer::new("app"))
        // Counts calls until the last byte of their answers, for the end of the program.
        .layer(DrainLayer::new(drain.clone()))
        // A second for the whole call, or less if the caller says so.
        .layer(DeadlineLayer::new(Duration::from_secs(1)).header(TIMEOUT))
        // 20 at once, and 10 a second in the long run.
        .layer(RateLimitLayer::new(10.0, 20))
        // At most 100 calls in the handlers.
        .layer(ConcurrencyLayer::new(100));
    Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/slow", get(slow))
        .route("/report", get(report))
        .route("/forecast", get(ask_forecast).with_state(forecast))
        .route("/storm", post(storm).with_state(Arc::clone(&weather)))
        .route("/calm", post(calm).with_state(weather))
        .layer(layers)
}

/// What the app calls: a client that has become a service which always answers.
type Forecast = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// A client of the forecast at `url`, in layers of its own, and the view of its breaker.
fn forecast(url: String) -> (Forecast, BreakerHandle) {
    let breaker = BreakerLayer::new(
        BreakerPolicy::new()
            .consecutive_failures(3)
            .recovery(Duration::from_millis(500))
            .success_threshold(1),
    );
    let handle = breaker.handle();
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    let service = ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(Body::new))
        .layer(RespondLayer::new().reason_header(REASON))
        .layer(DeadlineLayer::new(Duration::from_millis(800)))
        // Outside of the client and inside of the deadline: a forecast that takes too long is a failure.
        .layer(breaker)
        .map_request(move |mut request: Request<Body>| {
            // A path that does not parse is refused by the client, which needs a host.
            *request.uri_mut() = format!("{url}{}", request.uri().path())
                .parse()
                .unwrap_or_default();
            request
        })
        .service(client);
    (BoxCloneSyncService::new(service), handle)
}

async fn ask_forecast(State(forecast): State<Forecast>) -> Response<Body> {
    let request = Request::get("/today").body(Body::empty());
    let request = request.unwrap_or_default();
    match forecast.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_secs(10)).await;
    "at last"
}

/// An answer that comes in parts, over 300 ms.
async fn report() -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for part in ["one", ".. two", ".. three", ".. done"] {
            tokio::time::sleep(Duration::from_millis(75)).await;
            if sender.send(part).await.is_err() {
                return;
            }
        }
    });
    Body::new(http_body_util::StreamBody::new(Parts(receiver)))
}

/// A service that somebody else runs, as far as the app is concerned.
#[derive(Default)]
struct Weather {
    stormy: AtomicBool,
    asked: AtomicU32,
}

async fn today(State(weather): State<Arc<Weather>>) -> (StatusCode, &'static str) {
    weather.asked.fetch_add(1, Ordering::Relaxed);
    if weather.stormy.load(Ordering::Relaxed) {
        (StatusCode::INTERNAL_SERVER_ERROR, "struck by lightning")
    } else {
        (StatusCode::OK, "sunny")
    }
}

async fn storm(State(weather): State<Arc<Weather>>) {
    weather.stormy.store(true, Ordering::Relaxed);
}

async fn calm(State(weather): State<Arc<Weather>>) {
    weather.stormy.store(false, Ordering::Relaxed);
}

#[tokio::main]
async fn main() -> Result {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let address = match arguments.as_slice() {
        [] => None,
        [serve, address] if serve == "--serve" => Some(address.as_str()),
        _ => return Err("usage: axum-layers [--serve ADDRESS]".into()),
    };

    let weather = Arc::new(Weather::default());
    let upstream = Router::new().route("/today", get(today).with_state(Arc::clone(&weather)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (forecast, breaker) = forecast(format!("http://{}", listener.local_addr()?));
    tokio::spawn(async move { axum::serve(listener, upstream).await });

    let drain = DrainHandle::new();
    let app = app(forecast, Arc::clone(&weather), &drain);
    let listener = TcpListener::bind(address.unwrap_or("127.0.0.1:0")).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async {
        stopped.await.ok();
    });
    let server = tokio::spawn(async move { server.await });

    let caller = Caller::new(url);
    if address.is_some() {
        println!("{} serves until Ctrl-C", caller.url);
        tokio::signal::ctrl_c().await?;
        println!("draining {} calls", drain.active());
        drained(&drain).await;
    } else {
        show_answers_and_deadlines(&caller).await?;
        show_breaker(&caller, &weather, &breaker).await?;
        show_rate_limit(&caller).await?;
        show_drain(&caller, &drain).await?;
    }
    // Nothing is under way: only idle connections are left, which the server now closes.
    drop(caller);
    drop(stop);
    server.await??;
    println!("\naxum-layers: done");
    Ok(())
}

/// Lets what is under way end within five seconds, and ends the rest.
async fn drained(drain: &DrainHandle) {
    drain.close();
    let in_time = tokio::time::timeout(Duration::from_secs(5), drain.drained()).await;
    if in_time.is_err() {
        println!("cancelled {} calls", drain.cancel());
        drain.drained().await;
    }
}

async fn show_answers_and_deadlines(caller: &Caller) -> Result {
    say("1. An answer goes through all layers.");
    caller.get("/hello").await?.expect(200)?;

    say("2. /slow would take 10 s. The deadline is 1 s, and a caller may ask for less.");
    caller.get("/slow").await?.expect(504)?;
    let mut hurried = caller.request("/slow")?;
    hurried.headers_mut().insert(TIMEOUT, "200ms".parse()?);
    println!("   (with x-request-timeout: 200ms)");
    caller.send(hurried).await?.expect(504)
}

async fn show_breaker(caller: &Caller, weather: &Weather, breaker: &BreakerHandle) -> Result {
    say("3. /forecast calls another service, through a breaker.");
    caller.get("/forecast").await?.expect(200)?;
    println!("   The other service breaks. Three failures in a row open the circuit.");
    weather.stormy.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        caller.get("/forecast").await?.expect(500)?;
    }
    println!("   The circuit is {}.", breaker.state().as_str());
    let asked = weather.asked.load(Ordering::Relaxed);
    let refused = caller.get("/forecast").await?;
    refused.expect(503)?;
    let spared = weather.asked.load(Ordering::Relaxed) == asked;
    println!("   The other service was left alone: {spared}.");
    println!("   It is mended, and the app's caller comes back when it was told to.");
    weather.stormy.store(false, Ordering::Relaxed);
    tokio::time::sleep(refused.retry_after.unwrap_or_default()).await;
    caller.get("/forecast").await?.expect(200)?;
    println!("   The circuit is {}.", breaker.state().as_str());
    Ok(())
}

async fn show_rate_limit(caller: &Caller) -> Result {
    say("4. Forty calls come at once, and there is room for about 20.");
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let caller = caller.clone();
            tokio::spawn(async move { caller.quietly(caller.request("/hello")?).await })
        })
        .collect();
    let (mut answered, mut refused) = (0, None);
    for call in calls {
        let answer = call.await??;
        if answer.status == 200 {
            answered += 1;
        } else {
            refused = Some(answer);
        }
    }
    println!("   {answered} of 40 calls were answered. One of the others got:");
    let refused = refused.ok_or("no call was refused")?;
    refused.print();
    refused.expect(429)?;
    println!("   After that time there is room again.");
    tokio::time::sleep(refused.retry_after.unwrap_or_default()).await;
    caller.get("/hello").await?.expect(200)
}

async fn show_drain(caller: &Caller, drain: &DrainHandle) -> Result {
    say("5. The program is to end while /report is being sent.");
    let response = caller.client.request(caller.request("/report")?).await?;
    println!("   GET /report -> {}, first bytes", response.status());
    println!("   calls under way: {}", drain.active());
    drain.close();
    println!("   From now on new calls are refused:");
    caller.get("/hello").await?.expect(503)?;
    let report = response.into_body().collect().await?.to_bytes();
    println!("   The report came to its end: {}", text(&report));
    drained(drain).await;
    println!("   calls under way: {}", drain.active());
    Ok(())
}

/// One who asks the app for things.
#[derive(Clone)]
struct Caller {
    client: Client<HttpConnector, Body>,
    url: String,
}

/// What came back.
struct Answer {
    path: String,
    status: u16,
    reason: Option<String>,
    retry_after: Option<Duration>,
    text: String,
    took: Duration,
}

impl Caller {
    fn new(url: String) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            url,
        }
    }

    fn request(&self, path: &str) -> Result<Request<Body>> {
        Ok(Request::get(format!("{}{path}", self.url)).body(Body::empty())?)
    }

    async fn get(&self, path: &str) -> Result<Answer> {
        self.send(self.request(path)?).await
    }

    async fn send(&self, request: Request<Body>) -> Result<Answer> {
        let answer = self.quietly(request).await?;
        answer.print();
        Ok(answer)
    }

    async fn quietly(&self, request: Request<Body>) -> Result<Answer> {
        let (began, path) = (Instant::now(), request.uri().path().to_owned());
        let response = self.client.request(request).await?;
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let (reason, after) = (header(REASON.as_str()), header("retry-after"));
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer {
            path,
            status,
            reason,
            retry_after: after
                .map(|secs| secs.parse().map(Duration::from_secs))
                .transpose()?,
            text: text(&body),
            took: began.elapsed(),
        })
    }
}

impl Answer {
    fn print(&self) {
        let took = self.took.as_millis();
        print!(
            "   GET {} -> {} after {took} ms: {}",
            self.path, self.status, self.text
        );
        if let Some(reason) = &self.reason {
            print!(" [{}: {reason}]", REASON.as_str());
        }
        if let Some(after) = self.retry_after {
            print!(" [retry-after: {}]", after.as_secs());
        }
        println!();
    }

    fn expect(&self, status: u16) -> Result {
        if self.status == status {
            return Ok(());
        }
        Err(format!("GET {} -> {}, and {status} was due", self.path, self.status).into())
    }
}

/// The parts of an answer, as they come.
struct Parts(tokio::sync::mpsc::Receiver<&'static str>);

impl futures_core::Stream for Parts {
    type Item = std::result::Result<http_body::Frame<bytes::Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0
            .poll_recv(cx)
            .map(|part| part.map(|part| Ok(http_body::Frame::data(part.into()))))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

fn say(step: &str) {
    println!("\n{step}");
}
