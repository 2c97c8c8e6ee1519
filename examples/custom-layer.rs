//! A layer of one's own in the stacks of plugins: around each call, and around each attempt; put there by code,
//! and by the config, which names it and gives it options.
//!
//! Run it with `cargo run --example custom-layer`. The layer is an ordinary tower layer, written here; it
//! knows nothing of plugins. The plugin is a service in this program that fails every other time, so
//! that retry has something to do.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use serde::Deserialize;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_plugins::config::{Config, Format};
use tower_plugins::{Body, Place, Plugins};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Writes what was asked and what came of it into a book.
#[derive(Clone)]
struct AuditLayer {
    what: String,
    book: Book,
}

/// What a config says of such a layer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditOptions {
    what: String,
}

/// Shared by all that write into it. It is the layer's, not the service's: services come and go.
type Book = Arc<Mutex<Vec<String>>>;

/// What [`AuditLayer`] makes of a service.
#[derive(Clone)]
struct Audit<S> {
    inner: S,
    layer: AuditLayer,
}

impl<S> Layer<S> for AuditLayer {
    type Service = Audit<S>;

    fn layer(&self, inner: S) -> Audit<S> {
        Audit {
            inner,
            layer: self.clone(),
        }
    }
}

// Of any body and any error: this layer would do around an axum route, or a client, as well.
impl<S, B, RB> Service<Request<B>> for Audit<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: std::fmt::Display,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let AuditLayer { what, book } = self.layer.clone();
        let asked = format!("{what}: {} {}", request.method(), request.uri().path());
        let call = self.inner.call(request);
        Box::pin(async move {
            let result = call.await;
            let came = match &result {
                Ok(response) => response.status().to_string(),
                Err(error) => error.to_string(),
            };
            let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
            book.push(format!("{asked} -> {came}"));
            result
        })
    }
}

const CONFIG: &str = "\
plugins:
  - name: shop
    transport: in-process
    endpoint: every-other-time
    retry: { max_retries: 2, initial_interval: 1ms }
  - name: depot
    transport: in-process
    endpoint: every-other-time
    retry: { max_retries: 2, initial_interval: 1ms }
    layers:
      - { name: audit, at: attempt, options: { what: depot's attempt } }
";

#[tokio::main]
async fn main() -> Result {
    let count = Arc::new(AtomicU32::new(0));
    let every_other_time = service_fn(move |_: Request<Body>| {
        let fails = count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        let mut response = Response::new(Body::from("here you are"));
        if fails {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        std::future::ready(Ok::<_, Infallible>(response))
    });

    say("1. By code a layer stands around each call, and one around each attempt of `shop`.");
    println!("   The config puts one around each attempt of `depot`.");
    let (calls, attempts) = (Book::default(), Book::default());
    let around_calls = AuditLayer {
        what: "call".to_owned(),
        book: calls.clone(),
    };
    let around_attempts = AuditLayer {
        what: "shop's attempt".to_owned(),
        book: attempts.clone(),
    };
    let book = attempts.clone();
    let by_config = move |AuditOptions { what }: AuditOptions| {
        if what.is_empty() {
            return Err("an audit of nothing");
        }
        let book = book.clone();
        Ok(AuditLayer { what, book })
    };
    println!("{}", indent(CONFIG));
    let plugins = Plugins::builder()
        .service("every-other-time", every_other_time)
        .layer(Place::Call, "audit", around_calls)
        .layer_of("shop", Place::Attempt, "audit", around_attempts)
        .layer_named("audit", by_config)
        .start(Config::parse(CONFIG, Format::Yaml)?)
        .await?;

    say("2. One call of each.");
    for name in ["shop", "depot"] {
        let request = Request::get(format!("/from/{name}")).body(Body::empty())?;
        let response = plugins.plugin(name).oneshot(request).await?;
        println!("   {name} -> {}", response.status());
    }

    say("3. What the books say: each call once, and each attempt.");
    let (calls, attempts) = (read(&calls), read(&attempts));
    for line in calls.iter().chain(&attempts) {
        println!("   {line}");
    }
    if (calls.len(), attempts.len()) != (2, 4) {
        return Err("the books are wrong".into());
    }

    say("4. A config that names a layer wrong is refused, with its place, and what runs goes on.");
    for (right, wrong) in [("name: audit", "name: audits"), ("what:", "whom:")] {
        let config = Config::parse(&CONFIG.replace(right, wrong), Format::Yaml)?;
        match plugins.reload(config).await {
            Ok(_) => return Err("it was taken".into()),
            Err(error) => match error.config() {
                Some(problems) => println!("{}", indent(&problems.to_string())),
                None => return Err(error.into()),
            },
        }
    }
    plugins.shutdown(Duration::from_secs(5)).await?;
    println!("\ncustom-layer: done");
    Ok(())
}

fn read(book: &Book) -> Vec<String> {
    let book = book.lock().unwrap_or_else(PoisonError::into_inner);
    book.clone()
}

fn say(step: &str) {
    println!("\n{step}");
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|line| format!("   | {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
