//! The server of `loopback` and `grpc`, in a process of its own, so that only the client is measured.

use std::convert::Infallible;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};

use futures_util::{Stream, TryStreamExt};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tonic::transport::server::TcpIncoming;
use tonic::{Status, Streaming};
use tower_plugins_proto::v1::plugin_server::{Plugin, PluginServer};
use tower_plugins_proto::v1::{ExecuteRequest, ExecuteResponse, InfoRequest, InfoResponse};

use crate::{Result, harness};

/// The word with which the bench starts itself as the server.
pub(crate) const COMMAND: &str = "serve";

/// The word for gRPC over TCP.
pub(crate) const GRPC: &str = "grpc";

/// How client and server speak HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// HTTP/1.1 over TCP.
    H1,
    /// HTTP/2 over TCP.
    H2,
    /// HTTP/1.1 over a Unix socket.
    Unix,
}

impl Wire {
    pub(crate) const ALL: [Self; 3] = [Self::H1, Self::H2, Self::Unix];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::Unix => "unix",
        }
    }
}

/// A server that runs until this is dropped.
pub(crate) struct Server {
    process: Child,
    /// `host:port`, or the path of the socket.
    pub(crate) address: String,
}

impl Server {
    /// One that speaks `wire`: a [`Wire`], or [`GRPC`].
    pub(crate) fn start(wire: &str) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args([COMMAND, wire])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("the server has no output")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        let address = address.trim_end().to_owned();
        Ok(Self { process, address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Echoes what it is sent, says where on its output, and ends with its input.
pub(crate) fn serve(wire: &str) -> Result {
    let known = Wire::ALL.into_iter().find(|known| known.as_str() == wire);
    if known.is_none() && wire != GRPC {
        return Err("no such wire".into());
    }
    let directory = tempfile::tempdir()?;
    harness::pin(1);
    let runtime = harness::runtime()?;
    let socket = directory.path().join("socket");
    runtime.spawn(async move {
        let ended = match known {
            Some(wire) => listen(wire, socket).await,
            None => listen_for_grpc().await,
        };
        if let Err(error) = ended {
            eprintln!("the server: {error}");
        }
    });
    runtime.block_on(async {
        let end = || std::io::stdin().read_to_end(&mut Vec::new());
        tokio::task::spawn_blocking(end).await
    })??;
    Ok(())
}

fn announce(address: impl Display) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{address}").and_then(|()| output.flush())
}

async fn listen_for_grpc() -> Result {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tonic::transport::Server::builder().add_service(PluginServer::new(Echo));
    Ok(server.serve_with_incoming(incoming).await?)
}

async fn listen(wire: Wire, socket: PathBuf) -> Result {
    if wire == Wire::Unix {
        let listener = UnixListener::bind(&socket)?;
        announce(socket.display())?;
        loop {
            tokio::spawn(connection(wire, listener.accept().await?.0));
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(wire, stream));
    }
}

async fn connection(wire: Wire, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let (io, echo) = (TokioIo::new(stream), service_fn(echo));
    let ended = if wire == Wire::H2 {
        let server = http2::Builder::new(TokioExecutor::new());
        server.serve_connection(io, echo).await
    } else {
        http1::Builder::new().serve_connection(io, echo).await
    };
    // The client may go away whenever it likes.
    drop(ended);
}

/// Gives each payload back.
struct Echo;

fn answer(request: ExecuteRequest) -> ExecuteResponse {
    ExecuteResponse {
        payload: request.payload,
        ..ExecuteResponse::default()
    }
}

#[tonic::async_trait]
impl Plugin for Echo {
    type ExecuteStreamStream = Pin<Box<dyn Stream<Item = Result<ExecuteResponse, Status>> + Send>>;

    async fn info(
        &self,
        _: tonic::Request<InfoRequest>,
    ) -> Result<tonic::Response<InfoResponse>, Status> {
        Err(Status::unimplemented("it has nothing to say of itself"))
    }

    async fn execute(
        &self,
        request: tonic::Request<ExecuteRequest>,
    ) -> Result<tonic::Response<ExecuteResponse>, Status> {
        Ok(tonic::Response::new(answer(request.into_inner())))
    }

    async fn execute_stream(
        &self,
        request: tonic::Request<Streaming<ExecuteRequest>>,
    ) -> Result<tonic::Response<Self::ExecuteStreamStream>, Status> {
        let answers = request.into_inner().map_ok(answer);
        Ok(tonic::Response::new(Box::pin(answers)))
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::new(Full::new(body)))
}
