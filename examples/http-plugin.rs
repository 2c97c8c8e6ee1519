//! A text service as a plugin over HTTP, with the envelope of go-plugins: the server and its caller.
//!
//! Run it with `cargo run --example http-plugin`. Both are in this program for the example's sake: between
//! them is a TCP connection, and the server knows nothing of who calls it. The envelope is that of
//! go-plugins, so that a host written with it may call this server, and this caller a plugin written for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_plugins::call::{Envelope, Method};
use tower_plugins::config::{Config, Format};
use tower_plugins::{Error, Plugin, Plugins};
use tower_plugins_sdk::router::{CallError, Caller, Input, Kind, Router};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// What the service can do with a text.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Upper,
    Reverse,
    Words,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    operation: Operation,
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    text: String,
}

/// The plugin's side: a typed handler. It answers those who send an envelope with one.
async fn run(caller: Caller, Input(asked): Input<Ask>) -> Result<Answer, CallError> {
    println!(
        "   server: {asked:?}, {:?}, x-tenant {:?}, for {:?}",
        caller.request_id(),
        caller.header("x-tenant"),
        caller.time_left()
    );
    let Ask { operation, text } = asked;
    if text.is_empty() {
        let message = "there is no text to work on";
        return Err(CallError::new(Kind::InvalidArgument, message));
    }
    let text = match operation {
        Operation::Upper => text.to_uppercase(),
        Operation::Reverse => text.chars().rev().collect(),
        Operation::Words => text.split_whitespace().count().to_string(),
    };
    Ok(Answer { text })
}

/// The caller's side: the path, whether a call may be repeated, and the codec.
static WORK: Method<Ask, Answer, Envelope> =
    Method::with_codec(http::Method::POST, "/run", Envelope).idempotent();

async fn work(plugin: &Plugin, operation: Operation, text: &str) -> Result<String, Error> {
    let ask = Ask {
        operation,
        text: text.to_owned(),
    };
    let call = plugin.invoke(&WORK, &ask).request_id("r-1");
    let answer = call
        .header("x-tenant", "seven")
        .timeout(Duration::from_secs(2));
    Ok(answer.await?.text)
}

#[tokio::main]
async fn main() -> Result {
    say("1. A text service listens on a TCP port.");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = Router::new().method("run", run).into_axum();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    println!("   it is at {url}");

    say("2. A config says where it is, and the plugin is called by name.");
    let config = format!(
        "
plugins:
  text:
    transport: http
    endpoint: {url}
    retry: {{ max_retries: 1, initial_interval: 10ms }}
"
    );
    let plugins = Plugins::builder()
        .start(Config::parse(&config, Format::Yaml)?)
        .await?;
    let text = plugins.plugin("text");
    for operation in [Operation::Upper, Operation::Reverse, Operation::Words] {
        let answer = work(&text, operation, "plugins are services").await?;
        println!("   {operation:?} -> {answer}");
    }

    say("3. What the service says went wrong is an error of the call.");
    match work(&text, Operation::Upper, "").await {
        Ok(answer) => return Err(format!("no text became {answer:?}").into()),
        Err(error) => println!("   {}", with_causes(&error)),
    }

    say("4. The server goes away: the call fails, after one more attempt, with its reason.");
    server.abort();
    let _ = server.await;
    // What was kept open by then is still served; this call opens a connection of its own.
    plugins
        .reload(Config::parse(
            &config.replace("retry:", "connection: { keep_alive: false }\n    retry:"),
            Format::Yaml,
        )?)
        .await?;
    match work(&text, Operation::Upper, "anybody there?").await {
        Ok(answer) => return Err(format!("nobody answered {answer:?}").into()),
        Err(error) => println!("   {:?}: {}", error.reason(), with_causes(&error)),
    }
    plugins.shutdown(Duration::from_secs(5)).await?;
    println!("\nhttp-plugin: done");
    Ok(())
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn say(step: &str) {
    println!("\n{step}");
}
