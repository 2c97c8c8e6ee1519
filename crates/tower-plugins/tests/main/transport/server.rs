//! Servers to call, and what the tests say to them.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tower_plugins::Body;
use tower_plugins::config::{Address, ConnectionSpec, Protocol};
use tower_plugins::transport::Http;
use tower_plugins_layers::BoxError;

pub(crate) type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Handler = Arc<dyn Fn(Request<Body>) -> Answer + Send + Sync>;

/// `work`, which must not take longer than any machine is slow.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work)
        .await
        .expect("it happens within 30 s")
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Socket {
    Tcp,
    /// TCP at this address.
    At(std::net::SocketAddr),
    Unix,
}

pub(crate) const EVERY: [(Socket, Protocol); 4] = [
    (Socket::Tcp, Protocol::Http1),
    (Socket::Tcp, Protocol::Http2),
    (Socket::Unix, Protocol::Http1),
    (Socket::Unix, Protocol::Http2),
];

/// A server of hyper's, which ends with this value.
pub(crate) struct Server {
    pub(crate) address: Address,
    pub(crate) protocol: Protocol,
    accepted: Arc<AtomicUsize>,
    most_open: Arc<AtomicUsize>,
    open: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

struct Serving {
    protocol: Protocol,
    handler: Handler,
    accepted: Arc<AtomicUsize>,
    most_open: Arc<AtomicUsize>,
    open: watch::Sender<usize>,
}

impl Server {
    pub(crate) async fn start<F>(
        socket: Socket,
        protocol: Protocol,
        handler: impl Fn(Request<Body>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let directory = tempfile::tempdir().unwrap();
        let (open, opened) = watch::channel(0);
        let serving = Arc::new(Serving {
            protocol,
            handler: Arc::new(move |request| Box::pin(handler(request))),
            accepted: Arc::default(),
            most_open: Arc::default(),
            open,
        });
        let (accepted, most_open) = (serving.accepted.clone(), serving.most_open.clone());
        let (address, task) = match socket {
            Socket::Tcp | Socket::At(_) => {
                let at = match socket {
                    Socket::At(at) => at,
                    _ => ([127, 0, 0, 1], 0).into(),
                };
                let listener = TcpListener::bind(at).await.unwrap();
                let address = tcp(listener.local_addr().unwrap());
                let task = tokio::spawn(async move {
                    let mut tasks = tokio::task::JoinSet::new();
                    loop {
                        tokio::select! {
                            accepted = listener.accept() => {
                                let (stream, _) = accepted.unwrap();
                                stream.set_nodelay(true).unwrap();
                                tasks.spawn(Arc::clone(&serving).serve(stream));
                            }
                            // What has ended is not kept.
                            Some(_) = tasks.join_next() => {}
                        }
                    }
                });
                (address, task)
            }
            Socket::Unix => {
                let path = directory.path().join("socket");
                let listener = UnixListener::bind(&path).unwrap();
                let task = tokio::spawn(async move {
                    let mut tasks = tokio::task::JoinSet::new();
                    loop {
                        tokio::select! {
                            accepted = listener.accept() => {
                                tasks.spawn(Arc::clone(&serving).serve(accepted.unwrap().0));
                            }
                            Some(_) = tasks.join_next() => {}
                        }
                    }
                });
                (unix(path), task)
            }
        };
        Self {
            address,
            protocol,
            accepted,
            most_open,
            open: opened,
            task,
            _directory: directory,
        }
    }

    /// The connections it was asked for.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The most connections that were open at a time.
    pub(crate) fn most_open(&self) -> usize {
        self.most_open.load(Ordering::SeqCst)
    }

    /// Waits until `count` connections are open.
    pub(crate) async fn until_open(&self, count: usize) {
        let mut open = self.open.clone();
        within(open.wait_for(|open| *open == count)).await.unwrap();
    }

    pub(crate) fn http(&self) -> Http {
        self.http_with(|_| ())
    }

    pub(crate) fn http_with(&self, change: impl FnOnce(&mut ConnectionSpec)) -> Http {
        let mut spec = spec(self.protocol);
        change(&mut spec);
        Http::new(&self.address, &spec).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Serving {
    async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        self.open.send_modify(|open| {
            *open += 1;
            self.most_open.fetch_max(*open, Ordering::SeqCst);
        });
        let service = service_fn(|request: Request<Incoming>| {
            let answer = (self.handler)(request.map(Body::new));
            async { Ok::<_, Infallible>(answer.await) }
        });
        let io = TokioIo::new(stream);
        let _ = match self.protocol {
            Protocol::Http1 => http1::Builder::new().serve_connection(io, service).await,
            _ => {
                let builder = http2::Builder::new(TokioExecutor::new());
                builder.serve_connection(io, service).await
            }
        };
        self.open.send_modify(|open| *open -= 1);
    }
}

pub(crate) fn tcp(address: std::net::SocketAddr) -> Address {
    Address::Http {
        authority: address.to_string().parse().unwrap(),
        prefix: String::new(),
    }
}

pub(crate) fn unix(path: PathBuf) -> Address {
    Address::Unix {
        path,
        prefix: String::new(),
    }
}

pub(crate) fn spec(protocol: Protocol) -> ConnectionSpec {
    let mut spec = ConnectionSpec::default();
    spec.protocol = protocol;
    spec
}

/// A handler that gives every request's body back.
pub(crate) async fn echo(request: Request<Body>) -> Response<Body> {
    Response::new(request.into_body())
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).body(body.into()).unwrap()
}

pub(crate) async fn read(response: Response<Body>) -> Bytes {
    within(response.into_body().collect())
        .await
        .unwrap()
        .to_bytes()
}

/// The whole chain of an error, as one text.
pub(crate) fn chain(error: &BoxError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// A body whose frames are sent by the test.
pub(crate) struct Channel(mpsc::UnboundedReceiver<Frame<Bytes>>);

pub(crate) fn channel() -> (mpsc::UnboundedSender<Frame<Bytes>>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Body::new(Channel(receiver)))
}

pub(crate) fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}
