//! A host in Go. The test is its plugin: what the host starts stands in for it, and hands over what is said by named pipes.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::fs;
use tokio::process::Command;
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_plugins_proto::go_plugin::broker::{Broker, Link, Multiplexed};
use tower_plugins_proto::go_plugin::grpc::Empty;
use tower_plugins_proto::go_plugin::grpc::grpc_broker_server::GrpcBrokerServer;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_server::{
    GrpcController, GrpcControllerServer,
};
use tower_plugins_proto::go_plugin::socket::Listen;
use tower_plugins_proto::go_plugin::tls::{Identity, Tls};
use tower_plugins_proto::go_plugin::{Certificate, HandshakeLine};

use super::{Io, accept, check, dial, healthy, peer, serve, with, within};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The service that the host calls: `peer.Peer`.
#[derive(Clone)]
struct Peer(Link);

impl NamedService for Peer {
    const NAME: &'static str = "peer.Peer";
}

impl tower::Service<http::Request<Body>> for Peer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let dials = request.uri().path() == "/peer.Peer/Dial";
        let method = Method(self.0.clone(), dials);
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<String, u32>::default());
            Ok(grpc.unary(method, request).await)
        })
    }
}

/// Whether it dials; else it accepts.
struct Method(Link, bool);

impl UnaryService<u32> for Method {
    type Response = String;
    type Future = Boxed<Result<Response<String>, Status>>;

    fn call(&mut self, request: Request<u32>) -> Self::Future {
        let (id, link, dials) = (request.into_inner(), self.0.clone(), self.1);
        Box::pin(async move {
            if !dials {
                accept(&link, id, "of the plugin").await;
                return Ok(Response::new("accepts".to_owned()));
            }
            assert!(check(dial(&link, id).await, "of the host").await?);
            Ok(Response::new("SERVING".to_owned()))
        })
    }
}

struct Controller(Arc<Notify>);

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.0.notify_one();
        Ok(Response::new(Empty {}))
    }
}

async fn is_called(multiplex: bool, certify: bool) {
    let Some(program) = peer() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let pipe = |name: &str| directory.path().join(name);
    for name in ["certificate", "line", "end"] {
        let made = Command::new("mkfifo").arg(pipe(name)).status();
        assert!(within(made).await.unwrap().success());
    }
    let words = [(multiplex, "multiplexed"), (certify, "certified")];
    let mut host = Command::new(program);
    host.arg(directory.path())
        .args(
            words
                .into_iter()
                .filter_map(|(said, word)| said.then_some(word)),
        )
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let host = tokio::spawn(async move { host.output().await.unwrap() });

    let certificate = within(fs::read_to_string(pipe("certificate")))
        .await
        .unwrap();
    assert_eq!(certificate.is_empty(), !certify);
    let shutdown = Arc::new(Notify::new());
    let served = tokio::spawn(be_plugin(
        directory.path().to_owned(),
        multiplex,
        certify.then(|| Certificate::from_pem(&certificate).unwrap()),
        shutdown.clone(),
    ));
    within(shutdown.notified()).await;
    within(fs::write(pipe("end"), "\n")).await.unwrap();
    let said = within(host).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "done\n");
    served.abort();
}

/// Is the plugin, in `directory`.
async fn be_plugin(
    directory: std::path::PathBuf,
    multiplex: bool,
    host: Option<Certificate>,
    shutdown: Arc<Notify>,
) {
    let listen = Listen::unix().directory(&directory);
    let listener = listen.bind().unwrap();
    let mut line = HandshakeLine::new(5, listener.address().clone()).unwrap();
    let mut tls = None;
    if let Some(host) = host {
        let identity = Identity::generate().unwrap();
        line = line.with_certificate(identity.certificate().clone());
        tls = Some(Tls::pinned(&identity, &host).unwrap());
    }
    if multiplex {
        line = line.with_multiplexing(true);
    }
    write_line(&directory, &line).await;

    let broker = Broker::new();
    let socket = listener.accept().await;
    if !multiplex {
        let link = with(Link::new(broker, listen), tls.as_ref());
        return main(socket, tls, routes(&link, shutdown).await).await;
    }
    let (multiplexed, mut incoming, driver) = Multiplexed::plugin(socket, &broker);
    tokio::spawn(driver);
    let link = with(Link::multiplexed(multiplexed), tls.as_ref());
    let routes = routes(&link, shutdown).await;
    while let Some(connection) = incoming.next().await {
        tokio::spawn(main(connection, tls.clone(), routes.clone()));
    }
}

async fn main(stream: impl Io + 'static, tls: Option<Tls>, routes: Routes) {
    match tls {
        Some(tls) => serve(tls.accept(stream).await.unwrap(), routes).await,
        None => serve(stream, routes).await,
    }
}

async fn write_line(directory: &Path, line: &HandshakeLine) {
    let written = fs::write(directory.join("line"), format!("{line}\n"));
    within(written).await.unwrap();
}

async fn routes(link: &Link, shutdown: Arc<Notify>) -> Routes {
    healthy("plugin")
        .await
        .add_service(Peer(link.clone()))
        .add_service(GrpcBrokerServer::new(link.broker().clone()))
        .add_service(GrpcControllerServer::new(Controller(shutdown)))
}

#[tokio::test]
async fn go_host_and_plugin_call_each_other() {
    is_called(false, false).await;
}

#[tokio::test]
async fn go_host_and_plugin_call_each_other_with_certificates() {
    is_called(false, true).await;
}

#[tokio::test]
async fn go_host_and_plugin_call_each_other_on_one_socket() {
    is_called(true, false).await;
}

#[tokio::test]
async fn go_host_and_plugin_call_each_other_on_one_socket_with_certificates() {
    is_called(true, true).await;
}
