//! A plugin that is written with the SDK, and does what `proto/peer.proto` says: as the one in Go, with the same flags.
//!
//! ```text
//! plugin [-versions 5,6] [-tls FOLDER] [-test] [-end-with-host]
//! ```

use std::error::Error as AnyError;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use crate::pattern;
use crate::peer::adder_client::AdderClient;
use crate::peer::adder_server::{Adder, AdderServer};
use crate::peer::peer_server::{Peer, PeerServer};
use crate::peer::{
    AddRequest, CountRequest, DESCRIPTOR_SET, Description, Empty, Number, Payload, Server, Sink,
    Text, WriteRequest,
};
use tokio::io::AsyncReadExt;
use tokio::time::sleep;
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tower_plugins_sdk::{Broker, BrokerError, Error, Health, Plugin, Services, Stdio};
use tracing_subscriber::prelude::*;

mod tls;

/// Of messages, in both directions.
const LARGEST: usize = i32::MAX as usize;

type Answer<T> = Result<Response<T>, Status>;

/// The service `peer.v1.Peer`.
struct Own {
    version: i32,
    broker: Broker,
    stdio: Stdio,
    health: Health,
    /// The descriptor 1 that the process was started with.
    raw_stdout: Arc<File>,
    told: Arc<Told>,
    total: tokio::sync::Mutex<i64>,
}

/// What the plugin was asked to do in future.
#[derive(Default)]
struct Told {
    stall_shutdown: AtomicI64,
    linger: AtomicI64,
}

#[derive(Clone, Copy)]
struct Sums;

#[tonic::async_trait]
impl Adder for Sums {
    async fn add(&self, request: Request<AddRequest>) -> Answer<Number> {
        let AddRequest { left, right } = request.into_inner();
        number(left + right)
    }
}

#[tonic::async_trait]
impl Peer for Own {
    async fn double(&self, request: Request<Number>) -> Answer<Number> {
        number(2 * request.into_inner().value)
    }

    type DoublesStream = std::pin::Pin<Box<dyn Stream<Item = Result<Number, Status>> + Send>>;

    async fn doubles(&self, request: Request<Streaming<Number>>) -> Answer<Self::DoublesStream> {
        let twice = |number: Result<Number, Status>| {
            number.map(|Number { value }| Number { value: 2 * value })
        };
        let doubles = request.into_inner().map(twice);
        Ok(Response::new(Box::pin(doubles)))
    }

    async fn count(&self, request: Request<CountRequest>) -> Answer<Number> {
        let CountRequest { add_server, amount } = request.into_inner();
        let host = self.broker.connect(add_server).await.map_err(unavailable)?;
        let mut total = self.total.lock().await;
        let (left, right) = (*total, amount);
        let sum = AdderClient::new(host)
            .add(AddRequest { left, right })
            .await?;
        *total = sum.into_inner().value;
        number(*total)
    }

    async fn offer(&self, _: Request<Empty>) -> Answer<Server> {
        let services = Services::new().service(AdderServer::new(Sums));
        let offer = self.broker.serve(services).await.map_err(unavailable)?;
        let id = offer.once();
        Ok(Response::new(Server { id }))
    }

    async fn write(&self, request: Request<WriteRequest>) -> Answer<Empty> {
        let request = request.into_inner();
        let bytes = pattern(usize::try_from(request.length).unwrap_or_default());
        let (sink, stdio, raw_stdout) =
            (request.sink(), self.stdio.clone(), self.raw_stdout.clone());
        let written = tokio::task::spawn_blocking(move || match sink {
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes).and_then(|()| stdout.flush())
            }
            Sink::Stderr => stdio.stderr().write_all(&bytes),
            Sink::RawStdout => (&*raw_stdout).write_all(&bytes),
            Sink::RawStderr => io::stderr().write_all(&bytes),
        });
        let written = written
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        written.map_err(|error| Status::internal(error.to_string()))?;
        empty()
    }

    async fn log(&self, request: Request<Text>) -> Answer<Empty> {
        let text = request.into_inner().value;
        tracing::trace!(number = 7, "{text}");
        tracing::debug!(number = 7, "{text}");
        tracing::info!(number = 7, "{text}");
        tracing::warn!(number = 7, "{text}");
        tracing::error!(number = 7, "{text}");
        empty()
    }

    async fn echo(&self, request: Request<Payload>) -> Answer<Payload> {
        Ok(Response::new(request.into_inner()))
    }

    async fn fill(&self, request: Request<Number>) -> Answer<Payload> {
        let length = usize::try_from(request.into_inner().value).unwrap_or_default();
        let data = pattern(length).into();
        Ok(Response::new(Payload { data }))
    }

    async fn describe(&self, _: Request<Empty>) -> Answer<Description> {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let pair = |(name, value)| format!("{}={}", text(name), text(value));
        let path = |path: io::Result<std::path::PathBuf>| path.unwrap_or_default().into();
        Ok(Response::new(Description {
            version: self.version,
            pid: std::process::id() as i32,
            directory: text(path(std::env::current_dir())),
            arguments: std::env::args_os().map(text).collect(),
            environment: std::env::vars_os().map(pair).collect(),
            stdin: text(path(std::fs::read_link("/proc/self/fd/0"))),
        }))
    }

    /// A panic in a handler is its call's; so it is said, as a panic is, and then the process ends.
    async fn panic(&self, request: Request<Text>) -> Answer<Empty> {
        let why = request.into_inner().value;
        let panics = std::thread::spawn(move || panic!("{why}"));
        drop(panics.join());
        std::process::abort();
    }

    #[allow(clippy::exit, reason = "it is what it is asked for")]
    async fn exit(&self, request: Request<Number>) -> Answer<Empty> {
        std::process::exit(request.into_inner().value as i32);
    }

    async fn wait(&self, request: Request<Number>) -> Answer<Empty> {
        sleep(milliseconds(request.into_inner().value)).await;
        empty()
    }

    async fn stall_shutdown(&self, request: Request<Number>) -> Answer<Empty> {
        let value = request.into_inner().value;
        self.told.stall_shutdown.store(value, Relaxed);
        empty()
    }

    async fn linger(&self, request: Request<Number>) -> Answer<Empty> {
        self.told.linger.store(request.into_inner().value, Relaxed);
        empty()
    }

    async fn spawn(&self, request: Request<Number>) -> Answer<Number> {
        let seconds = milliseconds(request.into_inner().value).as_secs_f64();
        // The standard streams are passed on as they are: 1 is the host's again, as the one that it was started with.
        let stdout = self.raw_stdout.try_clone().map_err(internal)?;
        let mut child = tokio::process::Command::new("sleep")
            .arg(seconds.to_string())
            .stdout(stdout)
            .spawn()
            .map_err(internal)?;
        let pid = child.id().unwrap_or_default();
        tokio::spawn(async move { child.wait().await });
        number(pid.into())
    }

    async fn set_health(&self, request: Request<Number>) -> Answer<Empty> {
        let serves = request.into_inner().value != 0;
        self.health.set("plugin", serves).await;
        empty()
    }
}

fn number(value: i64) -> Answer<Number> {
    Ok(Response::new(Number { value }))
}

fn empty() -> Answer<Empty> {
    Ok(Response::new(Empty {}))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unavailable(error: BrokerError) -> Status {
    Status::unavailable(error.to_string())
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn internal(error: io::Error) -> Status {
    Status::internal(error.to_string())
}

fn milliseconds(value: i64) -> Duration {
    Duration::from_millis(value.try_into().unwrap_or_default())
}

/// What the flags say; both `-name value` and `-name=value` are taken.
#[derive(Default)]
struct Flags {
    versions: Vec<u32>,
    tls: Option<String>,
    test: bool,
    end_with_host: bool,
}

impl Flags {
    fn read() -> Self {
        let mut flags = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (&*argument, None),
            };
            let mut value = || value.clone().or_else(|| arguments.next());
            match name.trim_start_matches('-') {
                "versions" => {
                    let said = value().unwrap_or_default();
                    flags.versions = said
                        .split(',')
                        .filter_map(|text| text.parse().ok())
                        .collect();
                }
                "tls" => flags.tls = value(),
                "test" => flags.test = true,
                "end-with-host" => flags.end_with_host = true,
                _ => {}
            }
        }
        if flags.versions.is_empty() {
            flags.versions.push(1);
        }
        flags
    }
}

/// Is the plugin that the arguments say, until it has been told to end.
///
/// # Errors
///
/// Those of the SDK, and of files that there are not.
pub async fn serve() -> Result<(), Box<dyn AnyError>> {
    let log = tower_plugins_sdk::log::layer();
    tower_plugins_sdk::log::panics();
    // Of the fixture alone: what libraries trace is no line of a test's.
    let own = tracing_subscriber::filter::filter_fn(|metadata| {
        let target = metadata.target();
        target == module_path!() || target.starts_with("tower_plugins_sdk::log")
    });
    tracing_subscriber::registry()
        .with(log.with_filter(own))
        .init();

    let flags = Flags::read();
    let told = Arc::new(Told::default());
    let mut plugin = Plugin::new("plugin", env!("CARGO_PKG_VERSION")).descriptors(DESCRIPTOR_SET);
    let raw_stdout = io::stdout().as_fd().try_clone_to_owned();
    let raw_stdout = Arc::new(File::from(raw_stdout?));
    for version in flags.versions {
        let own = Own {
            version: version as i32,
            broker: plugin.broker(),
            stdio: plugin.stdio(),
            health: plugin.health(),
            raw_stdout: raw_stdout.clone(),
            told: told.clone(),
            total: tokio::sync::Mutex::default(),
        };
        plugin = plugin.protocol_version(version, |services| {
            services.service(
                PeerServer::new(own)
                    .max_decoding_message_size(LARGEST)
                    .max_encoding_message_size(LARGEST),
            )
        });
    }
    if let Some(folder) = flags.tls {
        let (server, client) = tls::of(folder.as_ref(), "plugin")?;
        plugin = plugin.tls(server).client_tls(client);
    }
    let stall = told.clone();
    plugin = plugin
        .end_with_host(flags.end_with_host)
        .drain_timeout(Duration::from_secs(60))
        .on_shutdown(async move { sleep(milliseconds(stall.stall_shutdown.load(Relaxed))).await });
    if flags.test {
        return Ok(serve_test(plugin).await?);
    }
    plugin.serve().await?;
    sleep(milliseconds(told.linger.load(Relaxed))).await;
    Ok(())
}

/// Serves until stdin ends, and says on stdout how to attach.
async fn serve_test(plugin: Plugin) -> Result<(), Error> {
    let mut serving = plugin.test().await?;
    println!("{}", serving.reattach());
    let mut nothing = Vec::new();
    tokio::select! {
        () = serving.ended() => {}
        _ = async { tokio::io::stdin().read_to_end(&mut nothing).await } => serving.stop().await,
    }
    Ok(())
}
