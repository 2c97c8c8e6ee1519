//! Plugins behind Unix sockets: one that speaks HTTP, and one that speaks the lines of JSON of go-plugins.
//!
//! Run it with `cargo run --example unix-socket-plugin`. The files plugin is a file manager that speaks as plugins
//! for go-plugins do: it reads a line of JSON from its socket and writes one back, a call at a time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tower::ServiceExt;
use tower_plugins::call::Method;
use tower_plugins::config::{Config, Format};
use tower_plugins::{Body, Plugins};
use tower_plugins_sdk::router::{Info, Input, Router as Methods, State};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// What the file manager is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "lowercase")]
enum Ask {
    Write {
        name: String,
        text: String,
    },
    Read {
        name: String,
    },
    List,
    /// Takes longer than anybody waits.
    Dawdle,
}

/// What it answers: names, or the text of a file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Answer(Vec<String>);

/// The wire has no paths: what is asked for stands in the data.
static FILES: Method<Ask, Answer> = Method::post("/");

/// The plugin's side.
#[derive(Clone)]
struct FileManager {
    directory: PathBuf,
}

impl FileManager {
    fn work(&self, asked: Ask) -> std::io::Result<Answer> {
        // A plugin that serves others looks at names with more care than this.
        let path = |name: String| {
            self.directory
                .join(Path::new(&name).file_name().unwrap_or_default())
        };
        Ok(Answer(match asked {
            Ask::Write { name, text } => {
                std::fs::write(path(name), text)?;
                Vec::new()
            }
            Ask::Read { name } => vec![std::fs::read_to_string(path(name))?],
            Ask::List => {
                let names = std::fs::read_dir(&self.directory)?;
                let names =
                    names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
                names.collect::<std::io::Result<_>>()?
            }
            Ask::Dawdle => vec!["at last".to_owned()],
        }))
    }
}

/// The only method there is: `operation` is its own matter.
async fn files(
    State(manager): State<FileManager>,
    Input(asked): Input<Ask>,
) -> std::io::Result<Answer> {
    if matches!(asked, Ask::Dawdle) {
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    manager.work(asked)
}

#[tokio::main]
async fn main() -> Result {
    let run = tempfile::tempdir()?;
    let folder = tempfile::tempdir()?;

    say("1. Two plugins listen on Unix sockets: `greeter` speaks HTTP, `files` lines of JSON.");
    let (greeter, manager) = (
        run.path().join("greeter.sock"),
        run.path().join("files.sock"),
    );
    let listener = UnixListener::bind(&greeter)?;
    let app = Router::new().route("/hello", get(|| async { "hello from behind a socket" }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let listener = UnixListener::bind(&manager)?;
    let methods = Methods::with_state(FileManager {
        directory: folder.path().to_owned(),
    })
    .info(Info::new("files").version("1.0.0"))
    .method("files", files);
    tokio::spawn(methods.serve_unix(listener, std::future::pending()));
    let config = format!(
        "
plugins:
  greeter:
    transport: unix
    endpoint: {}
  files:
    transport: unix-json
    endpoint: {}
    connection: {{ max_connections: 4, max_response_body: 1MiB }}
",
        greeter.display(),
        manager.display()
    );
    let plugins = Plugins::builder()
        .start(Config::parse(&config, Format::Yaml)?)
        .await?;

    say("2. Over HTTP a plugin is any HTTP service.");
    println!(
        "   GET /hello -> {}",
        fetch(&plugins, "greeter", "/hello").await?
    );

    say("3. Over lines of JSON a typed method is a line of the type `execute`.");
    let plugin = plugins.plugin("files");
    let (name, text) = ("notes.txt".to_owned(), "remember the milk".to_owned());
    let ask = Ask::Write {
        name: name.clone(),
        text,
    };
    plugin.invoke(&FILES, &ask).await?;
    println!(
        "   list -> {:?}",
        plugin.invoke(&FILES, &Ask::List).await?.0
    );
    let read = Ask::Read { name };
    println!("   read -> {:?}", plugin.invoke(&FILES, &read).await?.0);
    let missing = Ask::Read {
        name: "nothing.txt".to_owned(),
    };
    match plugin.invoke(&FILES, &missing).await {
        Ok(answer) => return Err(format!("there is no such file, and it is {answer:?}").into()),
        Err(error) => println!(
            "   read of what is not there -> {:?}",
            error.answered_status()
        ),
    }

    say("4. `info`, `health` and `ping` are lines of their own.");
    for path in ["/info", "/health", "/ping"] {
        println!("   GET {path} -> {}", fetch(&plugins, "files", path).await?);
    }

    say(
        "5. A call that runs out of time takes its connection with it: no later call gets its answer.",
    );
    let late = plugin.invoke(&FILES, &Ask::Dawdle);
    match late.timeout(Duration::from_millis(100)).await {
        Ok(answer) => return Err(format!("it was not to be in time: {answer:?}").into()),
        Err(error) => println!("   dawdle -> {:?}", error.reason()),
    }
    for _ in 0..50 {
        let answer = plugin.invoke(&FILES, &read).await?;
        if answer != Answer(vec!["remember the milk".to_owned()]) {
            return Err(format!("out of step: {answer:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("   50 more calls, while that answer came: each had its own");

    plugins.shutdown(Duration::from_secs(5)).await?;
    println!("\nunix-socket-plugin: done");
    Ok(())
}

async fn fetch(plugins: &Plugins, plugin: &str, path: &str) -> Result<String> {
    let request = http::Request::get(path).body(Body::empty())?;
    let response = plugins.plugin(plugin).oneshot(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}

fn say(step: &str) {
    println!("\n{step}");
}
