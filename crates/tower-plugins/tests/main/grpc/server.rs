//! A gRPC server in all ways that a plugin can be reached.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tower_plugins::config::Config;
use tower_plugins::{Plugin, Plugins};
use tower_plugins_proto::v1::plugin_server::{Plugin as Served, PluginServer};
use tower_plugins_proto::v1::{ExecuteRequest, ExecuteResponse, InfoRequest, InfoResponse};

use crate::support::{config, within};
use crate::transport::tls::server::{Ca, Setup};

use calculator::calculator_client::CalculatorClient;
use calculator::calculator_server::{Calculator, CalculatorServer};
use calculator::{DivideRequest, Number};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::restriction,
    reason = "generated code answers to its generator"
)]
pub(crate) mod calculator {
    include!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/generated/calculator.v1.rs"
    ));
}

/// How a server is reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    Tcp,
    Unix,
    Tls,
    /// With clients that its own authority vouches for.
    MutualTls,
}

pub(crate) const WAYS: [Way; 3] = [Way::Tcp, Way::Unix, Way::Tls];

pub(crate) struct Server {
    transport: &'static str,
    target: String,
    pub(crate) ca: Ca,
    accepted: Arc<AtomicUsize>,
    /// A message for each stream of the server's that has ended.
    pub(crate) ended: mpsc::UnboundedReceiver<()>,
    pub(crate) desk: Desk,
    task: JoinHandle<()>,
    _dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the server was sent, and how it answers.
#[derive(Clone, Default)]
pub(crate) struct Desk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    seen: Vec<(MetadataMap, Option<ExecuteRequest>)>,
    failures: Vec<Status>,
}

impl Desk {
    /// Calls fail so, one after the other, before any is answered.
    pub(crate) fn fail(&self, status: Status) {
        self.0.lock().unwrap().failures.insert(0, status);
    }

    /// What was seen since this was last asked.
    pub(crate) fn seen(&self) -> Vec<(MetadataMap, Option<ExecuteRequest>)> {
        std::mem::take(&mut self.0.lock().unwrap().seen)
    }

    fn see(&self, metadata: &MetadataMap, message: Option<ExecuteRequest>) -> Result<(), Status> {
        let mut state = self.0.lock().unwrap();
        state.seen.push((metadata.clone(), message));
        state.failures.pop().map_or(Ok(()), Err)
    }
}

impl Server {
    pub(crate) async fn start(way: Way) -> Self {
        let (ended_sender, ended) = mpsc::unbounded_channel();
        let desk = Desk::default();
        let service = Service {
            desk: desk.clone(),
            ended: ended_sender,
        };
        let plugin = PluginServer::new(service.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(usize::MAX);
        let (_, health) = tonic_health::server::health_reporter();
        let routes = Routes::new(plugin)
            .add_service(CalculatorServer::new(service))
            .add_service(health);
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        let accepted = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&accepted);
        let (transport, target, task) = match way {
            Way::Unix => {
                let path = dir.path().join("grpc.sock");
                let listener = UnixListener::bind(&path).unwrap();
                let accept = async move || listener.accept().await.unwrap().0;
                let target = format!("unix:{}", path.display());
                ("grpc", target, tokio::spawn(serve(accept, counter, routes)))
            }
            Way::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let target = listener.local_addr().unwrap().to_string();
                let accept = async move || listener.accept().await.unwrap().0;
                ("grpc", target, tokio::spawn(serve(accept, counter, routes)))
            }
            Way::Tls | Way::MutualTls => {
                let certified = ca.certify(&["localhost"]);
                let mut setup = Setup::new(&certified);
                setup.clients = (way == Way::MutualTls).then_some(&ca);
                let acceptor = TlsAcceptor::from(Arc::new(setup.config()));
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let port = listener.local_addr().unwrap().port();
                let accept = async move || loop {
                    let stream = listener.accept().await.unwrap().0;
                    if let Ok(stream) = acceptor.accept(stream).await {
                        return stream;
                    }
                };
                let target = format!("localhost:{port}");
                (
                    "grpc-tls",
                    target,
                    tokio::spawn(serve(accept, counter, routes)),
                )
            }
        };
        Self {
            transport,
            target,
            ca,
            accepted,
            ended,
            desk,
            task,
            _dir: dir,
        }
    }

    /// A config with the plugin `p` that is this server, with further keys at the root and of it.
    pub(crate) fn config_with(&self, root: &str, keys: &str) -> Config {
        let Self {
            transport, target, ..
        } = self;
        let mut config = config(&format!(
            "{{ {root} plugins: {{ p: {{ transport: {transport}, endpoint: '{target}', {keys} }} }} }}"
        ));
        if *transport == "grpc-tls" {
            let plugin = config.plugins.get_mut("p").unwrap();
            plugin.upstream.tls.ca = self.ca.trusted().ca;
        }
        config
    }

    pub(crate) fn config(&self, keys: &str) -> Config {
        self.config_with("", keys)
    }

    pub(crate) async fn plugins(&self, keys: &str) -> Plugins {
        Plugins::builder().start(self.config(keys)).await.unwrap()
    }

    /// The plugin `p` that is this server.
    pub(crate) async fn plugin(&self, keys: &str) -> Plugin {
        self.plugins(keys).await.plugin("p")
    }

    /// The connections that it has taken.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// A stream of the server's has ended.
    pub(crate) async fn ended(&mut self) {
        within(self.ended.recv()).await.unwrap();
    }
}

/// The generated client of the plugin.
pub(crate) fn client(plugin: Plugin) -> CalculatorClient<Plugin> {
    CalculatorClient::with_origin(plugin, "http://plugin".parse().unwrap())
}

async fn serve<S>(accept: impl AsyncFn() -> S, accepted: Arc<AtomicUsize>, routes: Routes)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = routes.prepare();
    let mut connections = JoinSet::new();
    loop {
        let stream = TokioIo::new(accept().await);
        accepted.fetch_add(1, Ordering::SeqCst);
        let service = TowerToHyperService::new(routes.clone());
        connections.spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
            let _ = builder.serve_connection(stream, service).await;
        });
    }
}

#[derive(Clone)]
struct Service {
    desk: Desk,
    ended: mpsc::UnboundedSender<()>,
}

/// A stream of answers that tells when it is dropped.
pub(crate) struct Answers<T> {
    answers: Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>,
    ended: mpsc::UnboundedSender<()>,
}

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.answers.as_mut().poll_next(cx)
    }
}

impl<T> Drop for Answers<T> {
    fn drop(&mut self) {
        let _ = self.ended.send(());
    }
}

impl Service {
    fn stream<T>(
        &self,
        answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Response<Answers<T>> {
        Response::new(Answers {
            answers: Box::pin(answers),
            ended: self.ended.clone(),
        })
    }
}

pub(crate) const fn number(value: f64) -> Number {
    Number { value }
}

#[tonic::async_trait]
impl Calculator for Service {
    async fn divide(&self, request: Request<DivideRequest>) -> Result<Response<Number>, Status> {
        self.desk.see(request.metadata(), None)?;
        let DivideRequest { dividend, divisor } = request.into_inner();
        if divisor == 0.0 {
            let mut status = Status::invalid_argument("cannot divide by 0 %");
            let why = "because".parse().unwrap();
            status.metadata_mut().insert("x-why", why);
            return Err(status);
        }
        Ok(Response::new(number(dividend / divisor)))
    }

    async fn sum(&self, request: Request<Streaming<Number>>) -> Result<Response<Number>, Status> {
        self.desk.see(request.metadata(), None)?;
        let mut numbers = request.into_inner();
        let mut sum = 0.0;
        while let Some(number) = numbers.message().await? {
            sum += number.value;
        }
        Ok(Response::new(number(sum)))
    }

    type CountStream = Answers<Number>;

    async fn count(&self, request: Request<Number>) -> Result<Response<Answers<Number>>, Status> {
        self.desk.see(request.metadata(), None)?;
        let last = request.into_inner().value as u64;
        let numbers = (1..=last).map(|value| Ok(number(value as f64)));
        Ok(self.stream(futures_util::stream::iter(numbers)))
    }

    type RunningSumStream = Answers<Number>;

    async fn running_sum(
        &self,
        request: Request<Streaming<Number>>,
    ) -> Result<Response<Answers<Number>>, Status> {
        self.desk.see(request.metadata(), None)?;
        let sums = request.into_inner().scan(0.0, |sum, next| {
            let next = next.and_then(|next| {
                if next.value < 0.0 {
                    return Err(Status::out_of_range("below zero"));
                }
                *sum += next.value;
                Ok(number(*sum))
            });
            std::future::ready(Some(next))
        });
        Ok(self.stream(sums))
    }
}

fn upper(request: &ExecuteRequest) -> Result<ExecuteResponse, Status> {
    if request.payload.starts_with(b"\"fail") {
        return Err(Status::data_loss("it says so"));
    }
    Ok(ExecuteResponse {
        payload: request.payload.to_ascii_uppercase().into(),
        content_type: request.content_type.clone(),
        metadata: [("x-beside".into(), "here".into())].into(),
        request_id: request.request_id.clone(),
    })
}

#[tonic::async_trait]
impl Served for Service {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        self.desk.see(request.metadata(), None)?;
        Ok(Response::new(InfoResponse {
            name: "calculator".into(),
            version: "1.2.0".into(),
            description: "divides".into(),
            capabilities: vec!["divide".into()],
            metadata: [("author".into(), "us".into())].into(),
        }))
    }

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<ExecuteResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.desk.see(&metadata, Some(request.clone()))?;
        let answer = match request.method.as_str() {
            "slow" => std::future::pending().await,
            "zeros" => {
                let count: usize = serde_json::from_slice(&request.payload).unwrap();
                let zeros = format!("\"{}\"", "0".repeat(count));
                ExecuteResponse {
                    payload: zeros.into(),
                    ..Default::default()
                }
            }
            "echo" => ExecuteResponse {
                payload: request.payload,
                ..Default::default()
            },
            "words/upper" => upper(&request)?,
            other => return Err(Status::unimplemented(format!("no method {other}"))),
        };
        Ok(Response::new(answer))
    }

    type ExecuteStreamStream = Answers<ExecuteResponse>;

    async fn execute_stream(
        &self,
        request: Request<Streaming<ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStreamStream>, Status> {
        let desk = self.desk.clone();
        let metadata = request.metadata().clone();
        let answers = request.into_inner().map(move |message| {
            let message = message?;
            desk.see(&metadata, Some(message.clone()))?;
            upper(&message)
        });
        Ok(self.stream(answers))
    }
}
