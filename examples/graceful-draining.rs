//! Streams are under way, and what serves them is to go: drained on demand, exchanged by a reload, and at the end of the
//! program.
//!
//! Run it with `cargo run --example graceful-draining`. It serves its streams itself. Ctrl-C ends it as the end of its
//! steps does: new calls are refused, those under way get their time, and what is left then is cancelled. A
//! second Ctrl-C does not wait for that.

use std::convert::Infallible;
use std::future::IntoFuture;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use futures_util::stream;
use http::Request;
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::signal::ctrl_c;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower::ServiceExt;
use tower_plugins::config::{Config, Format};
use tower_plugins::{Body, Plugin, Plugins};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Between two lines of a stream.
const PAUSE: Duration = Duration::from_millis(50);

/// How long streams may go on when the program ends.
const PATIENCE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result {
    let old = serve("the old server").await?;
    let plugins = Plugins::builder().start(config(&old)?).await?;

    // A server would serve here.
    tokio::select! {
        done = steps(&plugins) => done?,
        asked = ctrl_c() => {
            asked?;
            println!("\nCtrl-C: no new calls; streams have {PATIENCE:?}");
        }
    }

    tokio::select! {
        report = plugins.shutdown(PATIENCE) => {
            let report = report?;
            for node in &report.retired {
                println!(
                    "   {}: {} streams ended by themselves, {} were cancelled",
                    node.plugin, node.drained, node.cancelled
                );
            }
            println!("\ngraceful-draining: shut down in {:.1?}, done", report.elapsed);
        }
        asked = ctrl_c() => asked?,
    }
    Ok(())
}

async fn steps(plugins: &Plugins) -> Result {
    let streams = plugins.plugin("streams");
    drain_with_progress(plugins, &streams).await?;
    drain_in_time(plugins, &streams).await?;
    reload(plugins, &streams).await?;
    say("5. The program ends. One stream is nearly over, another never ends.");
    let (short, endless) = (open(&streams, "5").await?, open(&streams, "endless").await?);
    drop((tokio::spawn(short.read()), tokio::spawn(endless.read())));
    println!(
        "   {} streams are under way",
        plugins.active_requests("streams")
    );
    Ok(())
}

async fn drain_with_progress(plugins: &Plugins, streams: &Plugin) -> Result {
    say("1. Three streams are under way, of 5, 10 and 15 lines, when their plugin is drained.");
    let mut readers = Vec::new();
    for lines in ["5", "10", "15"] {
        readers.push(tokio::spawn(open(streams, lines).await?.read()));
    }
    let drain = plugins.drain("streams");
    let mut progress = drain.progress().ok_or("there is such a plugin")?;
    let drain = tokio::spawn(drain.into_future());
    match open(streams, "1").await {
        Err(refused) => println!("   a new call: {refused}"),
        Ok(_) => return Err("a new call is to be refused".into()),
    }
    while let Some(left) = progress.next().await {
        println!("   streams under way: {}", left.calls);
    }
    let drained = drain.await??;
    println!(
        "   drained: {} streams ended, in {:.1?}",
        drained.calls, drained.elapsed
    );
    check(drained.calls == 3, "three streams were under way")?;
    for (reader, expected) in readers.into_iter().zip([5, 10, 15]) {
        check(
            reader.await? == Ok(expected),
            "each stream is to come to its end",
        )?;
    }

    say("2. It is enabled again, and serves.");
    plugins.enable("streams").await?;
    let lines = open(streams, "1").await?.read().await;
    println!("   a new call: {} line", lines.clone()?);
    check(lines == Ok(1), "it is to serve")
}

async fn drain_in_time(plugins: &Plugins, streams: &Plugin) -> Result {
    say(
        "3. A stream that never ends: the drain ends by its timeout, and leaves it or cancels it as asked.",
    );
    let endless = tokio::spawn(open(streams, "endless").await?.read());
    let time = Duration::from_millis(300);
    let Err(error) = plugins.drain("streams").timeout(time).await else {
        return Err("it is not to end".into());
    };
    let left = *error.drain_timeout().ok_or("it is a timeout")?;
    println!("   waited for: {left}");
    check(
        (left.remaining, left.cancelled) == (1, 0),
        "it is to be left alone",
    )?;
    check(!endless.is_finished(), "it is to go on")?;

    let drain = plugins
        .drain("streams")
        .timeout(time)
        .cancel_after_timeout();
    let Err(error) = drain.await else {
        return Err("it is not to end".into());
    };
    let left = *error.drain_timeout().ok_or("it is a timeout")?;
    println!("   cancelled:  {left}");
    check(
        (left.remaining, left.cancelled) == (0, 1),
        "it is to be cancelled",
    )?;
    match endless.await? {
        Err(error) => println!("   its reader is told: {error}"),
        Ok(_) => return Err("its reader is to be told".into()),
    }
    plugins.enable("streams").await?;
    Ok(())
}

async fn reload(plugins: &Plugins, streams: &Plugin) -> Result {
    say(
        "4. A reload moves the plugin to a new server, while a stream of 10 lines comes from the old one.",
    );
    let stream = open(streams, "10").await?;
    let from = stream.server.clone();
    let reader = tokio::spawn(stream.read());
    let new = serve("the new server").await?;
    let report = plugins.reload(config(&new)?).await?;
    println!("   {report}");
    let next = open(streams, "1").await?;
    println!(
        "   the next call: {}; the stream goes on, from {from}",
        next.server
    );
    check(
        next.server == "the new server",
        "the new one is to serve at once",
    )?;
    check(!reader.is_finished(), "the stream is to go on")?;
    next.read().await?;
    for node in report.retirement.wait().await {
        println!(
            "   the old node is gone after {:.1?}: {} drained, {} cancelled",
            node.elapsed, node.drained, node.cancelled
        );
        check(
            (node.drained, node.cancelled) == (1, 0),
            "its stream is to end by itself",
        )?;
    }
    check(reader.await? == Ok(10), "no line is to be lost")
}

/// A stream whose head is there.
struct Stream {
    server: String,
    body: Body,
}

impl Stream {
    /// Reads it to its end; gives the number of its lines, or what it ended with.
    async fn read(mut self) -> Result<usize, String> {
        let mut lines = 0;
        while let Some(frame) = self.body.frame().await {
            frame.map_err(|error| error.to_string())?;
            lines += 1;
        }
        Ok(lines)
    }
}

async fn open(plugin: &Plugin, lines: &str) -> Result<Stream> {
    let request = Request::get(format!("/lines/{lines}")).body(Body::empty())?;
    let response = plugin.clone().oneshot(request).await?;
    let server = response.headers().get("server").ok_or("who is it?")?;
    Ok(Stream {
        server: server.to_str()?.to_owned(),
        body: response.into_body(),
    })
}

fn config(url: &str) -> Result<Config> {
    let text = format!(
        "plugins: {{ streams: {{ transport: http, endpoint: {url}, drain_timeout: 10s }} }}"
    );
    Ok(Config::parse(&text, Format::Yaml)?)
}

/// Serves streams of as many lines as are asked for, or without an end; gives the URL.
async fn serve(name: &'static str) -> Result<String> {
    let lines = move |Path(lines): Path<String>| async move {
        let lines = lines.parse().unwrap_or(usize::MAX);
        let body = stream::unfold(0, move |line| async move {
            if line == lines {
                return None;
            }
            sleep(PAUSE).await;
            Some((Ok::<_, Infallible>(format!("line {line}\n")), line + 1))
        });
        let head = [("server", name), ("content-type", "text/event-stream")];
        (head, axum::body::Body::from_stream(body))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = Router::new().route("/lines/{lines}", get(lines));
    let _served: JoinHandle<_> = tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

fn check(holds: bool, what: &str) -> Result {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn say(step: &str) {
    println!("\n{step}");
}
