//! Lines of JSON on a Unix socket.

mod connections;
mod go;
mod step;
mod wire;

use std::path::PathBuf;

use http::{Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tower_plugins::Body;
use tower_plugins::config::ConnectionSpec;
use tower_plugins::transport::{Transport, UnixJson};
use tower_plugins_layers::BoxError;

use super::server::within;

/// A plugin that says what the test says.
pub(crate) struct Peer {
    pub(crate) path: PathBuf,
    listener: UnixListener,
    _directory: tempfile::TempDir,
}

/// One of its connections.
pub(crate) struct Talk(BufReader<UnixStream>);

impl Peer {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peer.sock");
        Self {
            listener: UnixListener::bind(&path).unwrap(),
            path,
            _directory: directory,
        }
    }

    /// The next connection to it.
    pub(crate) async fn accept(&self) -> Talk {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        Talk(BufReader::new(stream))
    }

    fn reach(&self) -> UnixJson {
        self.reach_with(|_| ())
    }

    fn reach_with(&self, change: impl FnOnce(&mut ConnectionSpec)) -> UnixJson {
        let mut spec = ConnectionSpec::default();
        change(&mut spec);
        UnixJson::new(&self.path, &spec)
    }

    /// Answers each line with its own `data`, on all connections.
    pub(crate) async fn echo(self) {
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = self.listener.accept().await.unwrap();
            tasks.spawn(async {
                let mut talk = Talk(BufReader::new(stream));
                while let Some(line) = talk.next().await {
                    talk.say(&echoed(&line)).await;
                }
            });
        }
    }
}

/// The answer to `line` that repeats its data.
fn echoed(line: &str) -> String {
    let asked: Value = serde_json::from_str(line).unwrap();
    let answer = json!({
        "type": asked["type"],
        "request_id": asked["request_id"],
        "success": true,
        "data": asked["data"],
    });
    format!("{answer}\n")
}

impl Talk {
    /// The next line as it came, with its newline; `None` when the connection was closed.
    async fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        // A connection that is dropped with bytes unread is reset.
        let read = self.0.read_line(&mut line).await.unwrap_or(0);
        (read > 0).then_some(line)
    }

    pub(crate) async fn line(&mut self) -> String {
        within(self.next()).await.expect("a line")
    }

    pub(crate) async fn say(&mut self, text: &str) {
        // The other side may have gone.
        let _ = self.0.get_mut().write_all(text.as_bytes()).await;
    }

    /// Reads a line, and answers it with its own data.
    async fn echo(&mut self) -> String {
        let line = self.line().await;
        self.say(&echoed(&line)).await;
        line
    }

    /// Waits for its end.
    async fn until_closed(&mut self) {
        let mut rest = Vec::new();
        let _ = within(self.0.read_to_end(&mut rest)).await;
        assert_eq!(String::from_utf8_lossy(&rest), "", "nothing more is sent");
    }
}

/// A call, which goes by the id `id`.
fn execute(id: &str, body: &'static str) -> Request<Body> {
    let request = Request::post("/").header("x-request-id", id);
    request.body(body.into()).unwrap()
}

async fn call(reach: &UnixJson, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    within(reach.call(request)).await
}
