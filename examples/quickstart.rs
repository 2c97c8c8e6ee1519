//! A config file names two plugins; this program calls them, edits the file while calls are under
//! way, and shows what happens.
//!
//! Run it with `cargo run --example quickstart`. It needs nothing but itself: the plugins are two
//! small axum servers that it starts on loopback and on a Unix socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::Path as UrlPath;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::Request;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tower::{Service, ServiceExt};
use tower_plugins::call::Method;
use tower_plugins::{Body, Plugins};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Serialize, Deserialize)]
struct Shout {
    text: String,
}

/// What is called, once for the whole program: `POST /shout` with JSON, and it may be repeated.
const SHOUT: Method<Shout, Shout> = Method::post("/shout").idempotent();

#[tokio::main]
async fn main() -> Result {
    let dir = tempfile::tempdir()?;
    let count = Arc::new(Count::default());

    say("1. Two plugins start: `text` on a TCP port, `greeter` on a Unix socket.");
    let text_v1 = start_text_server("v1").await?;
    let socket = start_greeter(dir.path()).await?;

    say("2. A config file names them.");
    let file = dir.path().join("plugins.yaml");
    write(&file, &config(&text_v1, &socket))?;
    println!("{}", indent(&config(&text_v1, &socket)));
    let plugins = Plugins::builder().watch(&file).await?;
    println!("   running: {}", plugins.names().join(", "));

    say("3. A typed call, and a raw one.");
    let text = plugins.plugin("text");
    let answer = text
        .invoke(
            &SHOUT,
            &Shout {
                text: "hello".into(),
            },
        )
        .await?;
    println!("   text.invoke(SHOUT, hello)  -> {}", answer.text);
    let greeter = plugins.plugin("greeter");
    let response = greeter
        .oneshot(Request::get("/hello/tower").body(Body::empty())?)
        .await?;
    println!(
        "   GET /hello/tower           -> {}",
        read(response.into_body()).await?
    );
    count.calls.fetch_add(2, Ordering::Relaxed);

    say(
        "4. Callers keep calling from now on, and the file is edited: `text` moves to a new server.",
    );
    let callers: Vec<_> = (0..4)
        .map(|_| tokio::spawn(keep_calling(plugins.clone(), count.clone())))
        .collect();
    // A long download begins on the old server, and is still under way when that server leaves.
    let mut slow = plugins.plugin("text");
    let download = slow
        .call(Request::get("/slow").body(Body::empty())?)
        .await?;
    let text_v2 = start_text_server("v2").await?;
    let before = count.calls.load(Ordering::Relaxed);
    let mut status = plugins.subscribe();
    write(&file, &config(&text_v2, &socket))?;
    let generation = status
        .wait_for(|status| status.generation.get() == 2)
        .await?
        .generation;
    let answer = text
        .invoke(
            &SHOUT,
            &Shout {
                text: "hello".into(),
            },
        )
        .await?;
    println!(
        "   generation {generation} serves: text.invoke(SHOUT, hello) -> {}",
        answer.text
    );
    let downloaded = read(download.into_body()).await?;
    println!("   the download from the old server went on to its end: {downloaded}");
    count.calls.fetch_add(2, Ordering::Relaxed);
    let cancelled = status
        .wait_for(|status| status.retiring == 0)
        .await?
        .cancelled;
    println!("   the old server's node has drained; calls cancelled: {cancelled}");

    say("5. A broken edit is refused, and what runs goes on.");
    write(
        &file,
        &config(&text_v2, &socket).replace("max_retries", "max_retrys"),
    )?;
    let refused = status
        .wait_for(|status| status.rejected == 1)
        .await?
        .last_error
        .clone();
    if let Some(problem) = refused.as_ref().and_then(|error| error.config()) {
        println!("{}", indent(&problem.to_string()));
    }
    let answer = text
        .invoke(
            &SHOUT,
            &Shout {
                text: "still here".into(),
            },
        )
        .await?;
    println!("   text.invoke(SHOUT, still here) -> {}", answer.text);
    count.calls.fetch_add(1, Ordering::Relaxed);

    say("6. The edit is mended: only the retry policy differs, so connections are kept.");
    write(
        &file,
        &config(&text_v2, &socket).replace("max_retries: 2", "max_retries: 5"),
    )?;
    status
        .wait_for(|status| status.generation.get() == 3)
        .await?;
    println!("   generation 3 serves");

    say("7. The program ends: callers stop, plugins drain.");
    count.stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await?;
    }
    // The first generation was the start, each later one a reload.
    let reloads = plugins.status().generation.get() - 1;
    let under_load = count.calls.load(Ordering::Relaxed) - before;
    println!("   {under_load} calls were made while the config changed");
    let report = plugins.shutdown(Duration::from_secs(5)).await?;
    let cancelled: usize = report.retired.iter().map(|node| node.cancelled).sum();
    println!(
        "   shut down in {:?}, {cancelled} calls cancelled",
        report.elapsed
    );

    let (calls, failed) = (
        count.calls.load(Ordering::Relaxed),
        count.failed.load(Ordering::Relaxed),
    );
    println!("\nquickstart: {calls} calls, {failed} failed, {reloads} reloads");
    if failed == 0 {
        Ok(())
    } else {
        Err("calls failed".into())
    }
}

/// The config file: what is called what, where it is, and how calls to it are treated.
fn config(text: &str, socket: &Path) -> String {
    format!(
        "\
plugins:
  - name: text
    transport: http
    endpoint: {text}
    retry:
      max_retries: 2
    circuit_breaker:
      failure_threshold: 5
  - name: greeter
    transport: unix
    endpoint: {}
",
        socket.display()
    )
}

#[derive(Default)]
struct Count {
    calls: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

/// Calls both plugins in turn until told to stop.
async fn keep_calling(plugins: Plugins, count: Arc<Count>) {
    let text = plugins.plugin("text");
    let mut greeter = plugins.plugin("greeter");
    let words = Shout {
        text: "busy".into(),
    };
    while !count.stop.load(Ordering::Relaxed) {
        let typed = text.invoke(&SHOUT, &words).await.map(drop);
        let raw = match greeter.call(Request::new(Body::empty())).await {
            Ok(response) => read(response.into_body()).await.map(drop),
            Err(error) => Err(error.into()),
        };
        for failure in [typed.err().map(Into::into), raw.err()]
            .into_iter()
            .flatten()
        {
            eprintln!("   a call failed: {failure}");
            count.failed.fetch_add(1, Ordering::Relaxed);
        }
        count.calls.fetch_add(2, Ordering::Relaxed);
    }
}

/// A plugin on a TCP port, as anybody would write it.
async fn start_text_server(version: &'static str) -> Result<String> {
    let shout = move |Json(words): Json<Shout>| async move {
        Json(Shout {
            text: format!("{}! (from {version})", words.text.to_uppercase()),
        })
    };
    let slow = || async {
        let (sender, receiver) = tokio::sync::mpsc::channel::<&'static str>(1);
        tokio::spawn(async move {
            for part in ["one", ".. two", ".. three", ".. done"] {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if sender.send(part).await.is_err() {
                    return;
                }
            }
        });
        axum::body::Body::new(http_body_util::StreamBody::new(Parts(receiver)))
    };
    let app = Router::new()
        .route("/shout", post(shout))
        .route("/slow", get(slow));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

/// A plugin on a Unix socket.
async fn start_greeter(dir: &Path) -> Result<PathBuf> {
    let app = Router::new().route("/", get(|| async { "hello" })).route(
        "/hello/{name}",
        get(|UrlPath(name): UrlPath<String>| async move { format!("hello, {name}") }),
    );
    let socket = dir.join("greeter.sock");
    let listener = tokio::net::UnixListener::bind(&socket)?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(socket)
}

/// The parts of a slow response, as they come.
struct Parts(tokio::sync::mpsc::Receiver<&'static str>);

impl futures_core::Stream for Parts {
    type Item = std::result::Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0
            .poll_recv(cx)
            .map(|part| part.map(|part| Ok(http_body::Frame::data(part.into()))))
    }
}

/// Replaces a file the way editors and deployments do: written beside it, then renamed.
fn write(file: &Path, text: &str) -> Result {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::rename(beside, file)?;
    Ok(())
}

async fn read(body: Body) -> Result<String> {
    Ok(String::from_utf8(body.collect().await?.to_bytes().into())?)
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
