//! A plugin of go-plugin that is a shell script and a socket of this process.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::task::AbortHandle;
use tower_plugins::{Body, Error, Plugins};
use tower_plugins_proto::go_plugin::Certificate;
use tower_plugins_proto::go_plugin::broker::{Broker, Multiplexed};
use tower_plugins_proto::go_plugin::tls::Identity;

use crate::support::{config, get, text};

/// What the script says and does; the socket that it names is served here.
pub(crate) struct Fake {
    folder: TempDir,
    /// The certificate that it announces, and the one that it has.
    tls: Option<(Identity, Identity)>,
    is_multiplexed: bool,
    seen: Arc<Seen>,
}

/// What the socket has seen.
#[derive(Default)]
struct Seen {
    /// The paths that were asked for.
    asked: Mutex<Vec<String>>,
    connections: Mutex<Vec<AbortHandle>>,
    /// Whether it takes the streams of the protocol, and says nothing on them.
    takes_streams: AtomicBool,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self::of(None, false)
    }

    /// One that has all connections go over one socket.
    pub(crate) fn multiplexed() -> Self {
        Self::of(None, true)
    }

    /// One that announces the certificate of `announced`, and has that of `own`.
    pub(crate) fn secured(announced: &Identity, own: &Identity) -> Self {
        Self::of(Some((announced.clone(), own.clone())), false)
    }

    fn of(tls: Option<(Identity, Identity)>, is_multiplexed: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let seen = Arc::<Seen>::default();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let own = tls.as_ref().map(|(_, own)| own.clone());
        let environment = folder.path().join("environment");
        match is_multiplexed {
            true => tokio::spawn(serve_multiplexed(listener, Arc::clone(&seen))),
            false => tokio::spawn(serve(listener, Arc::clone(&seen), own, environment)),
        };
        Self {
            folder,
            tls,
            is_multiplexed,
            seen,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The line of a plugin that is served here.
    pub(crate) fn line(&self) -> String {
        let announced = self.tls.as_ref().map(|(announced, _)| announced);
        let certificate = announced.map_or_else(String::new, |one| one.certificate().to_base64());
        let more = if self.is_multiplexed { "|true" } else { "" };
        format!(
            "1|1|unix|{}|grpc|{certificate}{more}",
            self.socket().display()
        )
    }

    /// The keys of a plugin that runs `script`, which may call `say` to write the line, and `stay` to live on.
    pub(crate) fn keys(&self, script: &str) -> String {
        let script = format!(
            "say() {{ env -0 >\"$0.new\"; mv \"$0.new\" \"$0\"; echo '{}'; }}\nstay() {{ exec sleep 3600; }}\n{script}",
            self.line()
        );
        let environment = self.folder.path().join("environment");
        let args = ["-c", &script, environment.to_str().unwrap()];
        let args = serde_json::to_string(&args).unwrap();
        format!(
            "transport: subprocess, executable: /bin/sh, args: {args}, retry: off, circuit_breaker: off"
        )
    }

    /// The plugin `p` that says the line and lives on, with `keys`.
    pub(crate) async fn start(&self, keys: &str) -> Plugins {
        start(&format!("{}, {keys}", self.keys("say; stay"))).await
    }

    /// What the environment of the script was.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        environment(&self.folder.path().join("environment"))
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.seen.asked.lock().unwrap().clone()
    }

    /// Has it take the streams of the protocol from now on, and say nothing on them, not even a head, as Go's side.
    pub(crate) fn take_streams(&self) {
        self.seen.takes_streams.store(true, Ordering::Relaxed);
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        let connections = std::mem::take(&mut *self.seen.connections.lock().unwrap());
        assert!(!connections.is_empty());
        connections.iter().for_each(AbortHandle::abort);
    }
}

pub(crate) async fn start(keys: &str) -> Plugins {
    let yaml = format!("plugins: {{ p: {{ {keys} }} }}");
    Plugins::builder().start(config(&yaml)).await.unwrap()
}

/// What `p` answers.
pub(crate) async fn called(plugins: &Plugins) -> Result<String, Error> {
    text(&plugins.plugin("p"), get("/hello")).await
}

fn environment(file: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(file).unwrap();
    let variables = text.split('\0').filter_map(|one| one.split_once('='));
    variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Answers with the path, never on `/hang`, without an end on `/endless`, and of what belongs to gRPC that it is not there; over TLS with the certificate of `own`, and with
/// nobody but who has the one in `file`.
async fn serve(listener: UnixListener, seen: Arc<Seen>, own: Option<Identity>, file: PathBuf) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let connection = match &own {
            None => tokio::spawn(answer(stream, Arc::clone(&seen))),
            Some(own) => {
                let host = Certificate::from_pem(&environment(&file)["PLUGIN_CLIENT_CERT"]);
                let config = own.server_config(&host.unwrap()).unwrap();
                let accept = tokio_rustls::TlsAcceptor::from(config).accept(stream);
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    if let Ok(stream) = accept.await {
                        answer(stream, seen).await;
                    }
                })
            }
        };
        let mut connections = seen.connections.lock().unwrap();
        connections.push(connection.abort_handle());
    }
}

/// The same, with all connections over one socket each time.
async fn serve_multiplexed(listener: UnixListener, seen: Arc<Seen>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let seen_here = Arc::clone(&seen);
        let connection = tokio::spawn(async move {
            let (_multiplexed, mut incoming, driver) = Multiplexed::plugin(stream, &Broker::new());
            let serve = async {
                while let Some(connection) = incoming.next().await {
                    tokio::spawn(answer(connection, Arc::clone(&seen_here)));
                }
            };
            let _ = tokio::join!(driver, serve);
        });
        let mut connections = seen.connections.lock().unwrap();
        connections.push(connection.abort_handle());
    }
}

async fn answer<S>(stream: S, seen: Arc<Seen>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let answer = tower::service_fn(move |request: Request<Incoming>| {
        let path = request.uri().path().to_owned();
        seen.asked.lock().unwrap().push(path.clone());
        let is_grpc = request.headers().contains_key("te");
        let is_stream = path.contains("Stream") && seen.takes_streams.load(Ordering::Relaxed);
        let hangs = path == "/hang" || is_stream;
        let mut response = Response::new(match &*path {
            "/endless" => Body::new(Endless),
            _ => Body::from(path),
        });
        if is_grpc {
            response = Response::new(Body::empty());
            let headers = response.headers_mut();
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from_static("12"));
        }
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(answer));
    // It ends as the other side has it.
    drop(connection.await);
}

/// A body that never ends.
struct Endless;

impl http_body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
        Poll::Pending
    }
}
