//! What a plugin prints, which comes over a stream of its own: go-plugin's `GRPCStdio`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::codegen::tokio_stream::StreamExt;
use tonic::{Code, Status};
use tower_plugins_proto::go_plugin::grpc::StdioData;
use tower_plugins_proto::go_plugin::grpc::grpc_stdio_client::GrpcStdioClient;
use tower_plugins_proto::go_plugin::grpc::stdio_data::Channel as Of;

use super::session::Channel;
use crate::transport::subprocess::{Cutter, Logs};

/// How long what a plugin printed last may take to come when its session is over.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How soon a stream that broke is opened again.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// What one plugin printed, byte by byte: a part of it, as long as the plugin made it.
///
/// See [`Builder::output`](crate::Builder::output).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// The plugin's endpoint, one of its processes.
    pub endpoint: Arc<str>,
    /// What it was printed to.
    pub stream: OutputStream,
    /// The bytes. A line may come in several parts, and several in one.
    pub data: Bytes,
}

/// What a plugin prints to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutputStream {
    /// Its standard output.
    Stdout,
    /// Its standard error, less what is written there past go-plugin: its log, and a panic.
    Stderr,
}

/// Takes what a plugin prints.
#[derive(Clone)]
pub(crate) struct Sink(Arc<dyn Fn(Output) + Send + Sync>);

impl Sink {
    pub(crate) fn new(sink: impl Fn(Output) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

/// Where it goes.
pub(super) struct Pump {
    endpoint: Arc<str>,
    sink: Option<Sink>,
    /// Where there is no sink, line by line: of the standard output, and of the error.
    logs: [(Cutter, Logs); 2],
}

impl Pump {
    pub(super) fn new(plugin: &Arc<str>, endpoint: &Arc<str>, sink: Option<Sink>) -> Self {
        let log = || {
            let logs = Logs::new(Arc::clone(plugin), Arc::clone(endpoint));
            (Cutter::default(), logs)
        };
        Self {
            endpoint: Arc::clone(endpoint),
            sink,
            logs: [log(), log()],
        }
    }

    fn take(&mut self, said: StdioData) {
        let [stdout, stderr] = &mut self.logs;
        let (stream, (cutter, logs)) = match said.channel() {
            Of::Stdout => (OutputStream::Stdout, stdout),
            Of::Stderr => (OutputStream::Stderr, stderr),
            Of::Invalid => return,
        };
        let Some(sink) = &self.sink else {
            cutter.push(&said.data, |piece| logs.take(piece));
            return;
        };
        let output = Output {
            endpoint: Arc::clone(&self.endpoint),
            stream,
            data: said.data,
        };
        if catch_unwind(AssertUnwindSafe(|| (sink.0)(output))).is_err() {
            tracing::error!(
                server.address = &*self.endpoint,
                "a sink for a plugin's output panicked"
            );
        }
    }

    fn end(&mut self) {
        for (cutter, logs) in &mut self.logs {
            cutter.finish(|piece| logs.take(piece));
        }
    }
}

/// Reads what the plugin prints for as long as this is there, and what is left of it then: a plugin whose prints nobody reads hangs.
pub(super) struct Drain {
    _over: DropGuard,
}

impl Drain {
    pub(super) fn spawn(channel: Channel, mut pump: Pump) -> Self {
        let over = CancellationToken::new();
        let is_over = over.clone();
        tokio::spawn(async move {
            let mut read = std::pin::pin!(read(channel, &mut pump));
            tokio::select! {
                () = &mut read => {}
                () = is_over.cancelled() => {
                    let _ = timeout(LAST_WORDS, read).await;
                }
            }
        });
        Self {
            _over: over.drop_guard(),
        }
    }
}

async fn read(channel: Channel, pump: &mut Pump) {
    loop {
        let ended = read_once(&channel, pump).await;
        pump.end();
        if !is_opened_again(&ended) {
            tracing::debug!(?ended, "a plugin hands over no more of what it prints");
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn read_once(channel: &Channel, pump: &mut Pump) -> Result<(), Status> {
    let mut client = GrpcStdioClient::new(channel.clone());
    let mut stream = client.stream_stdio(()).await?.into_inner();
    while let Some(said) = stream.next().await {
        pump.take(said?);
    }
    Ok(())
}

/// Whether a stream that ended so is opened again. It ends with the plugin, as a rule, and may not be there; but a connection that broke, also
/// before anything came, is opened anew.
pub(super) fn is_opened_again(ended: &Result<(), Status>) -> bool {
    matches!(ended, Err(status) if status.code() != Code::Unimplemented)
}
