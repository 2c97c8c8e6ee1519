//! A tonic server as a gateway: it passes gRPC calls on to plugins, and knows none of their messages.
//!
//! `cargo run --example tonic-gateway` starts two servers of words, the gateway in front of them and a client, says
//! what happens and ends. To call it yourself, keep it running:
//!
//! ```sh
//! cargo run --example tonic-gateway -- --serve 127.0.0.1:3004
//! grpcurl -plaintext -proto proto/tower_plugins/v1/plugin.proto localhost:3004 tower_plugins.v1.Plugin/Info
//! ```
//!
//! The servers answer `tower_plugins.v1.Plugin`, for its code is at hand; to the gateway it could be any service.

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::ServiceBuilder;
use tower_plugins::Plugins;
use tower_plugins::config::{Config, Format};
use tower_plugins_layers::{ConcurrencyLayer, DrainHandle, DrainLayer, RespondLayer, TraceLayer};
use tower_plugins_proto::v1::plugin_client::PluginClient;
use tower_plugins_proto::v1::plugin_server::{Plugin, PluginServer};
use tower_plugins_proto::v1::{ExecuteRequest, ExecuteResponse, InfoRequest, InfoResponse};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The gateway: `/next/…` goes to one plugin, all else to another.
fn gateway(plugins: &Plugins) -> Routes {
    let words = plugins.plugin("words").into_grpc_proxy();
    let next = plugins.plugin("words-next").into_grpc_proxy();
    let routes = Router::new()
        .nest_service("/next", next)
        .fallback_service(words);
    // Services of the gateway's own come in with `add_service`.
    Routes::from(routes)
}

/// The plugins' side: turns words into shouts.
struct Words {
    version: &'static str,
}

impl Words {
    async fn serve(version: &'static str) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let server = Server::builder().add_service(PluginServer::new(Self { version }));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(address)
    }
}

fn shout(version: &str, request: &ExecuteRequest) -> ExecuteResponse {
    let word = String::from_utf8_lossy(&request.payload).to_uppercase();
    ExecuteResponse {
        payload: format!("{word}! (from {version})").into(),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Plugin for Words {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse {
            name: "words".into(),
            version: self.version.into(),
            ..Default::default()
        }))
    }

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<ExecuteResponse>, Status> {
        let request = request.into_inner();
        match request.method.as_str() {
            "shout" => Ok(Response::new(shout(self.version, &request))),
            "sleep" => std::future::pending().await,
            other => {
                let mut status = Status::unimplemented(format!("no method {other}"));
                let known = status.metadata_mut();
                known.insert(
                    "x-known",
                    tonic::metadata::MetadataValue::from_static("shout"),
                );
                Err(status)
            }
        }
    }

    type ExecuteStreamStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<ExecuteResponse, Status>> + Send>>;

    async fn execute_stream(
        &self,
        request: Request<Streaming<ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStreamStream>, Status> {
        let version = self.version;
        let shouts = request.into_inner();
        let shouts = shouts.map(move |word| Ok(shout(version, &word?)));
        Ok(Response::new(Box::pin(shouts)))
    }
}

fn config(words: &str, next: &str) -> Result<Config> {
    let text = format!(
        "
        plugins:
          words: {{ transport: grpc, endpoint: '{words}', connection: {{ request_timeout: 300ms }} }}
          words-next: {{ transport: grpc, endpoint: '{next}', retry: off }}
        "
    );
    Ok(Config::parse(&text, Format::Yaml)?)
}

#[tokio::main]
async fn main() -> Result {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let address = match arguments.as_slice() {
        [] => "127.0.0.1:0",
        [serve, address] if serve == "--serve" => address.as_str(),
        _ => return Err("usage: tonic-gateway [--serve ADDRESS]".into()),
    };
    let (one, two) = (Words::serve("1").await?, Words::serve("2").await?);
    let plugins = Plugins::builder().start(config(&one, &two)?).await?;

    // The gateway's own layers, around all that it passes on.
    let drain = DrainHandle::new();
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .layer(TraceLayer::new("gateway"))
        .layer(DrainLayer::new(drain.clone()))
        .layer(ConcurrencyLayer::new(100));
    let listener = TcpListener::bind(address).await?;
    let target = listener.local_addr()?;
    let server = Server::builder()
        .layer(layers.into_inner())
        .add_routes(gateway(&plugins))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), drain.closed());
    let server = tokio::spawn(server);
    if !arguments.is_empty() {
        println!("{target} serves until Ctrl-C");
        tokio::signal::ctrl_c().await?;
    } else {
        let channel = Channel::from_shared(format!("http://{target}"))?
            .connect()
            .await?;
        let mut client = PluginClient::new(channel.clone());
        show_calls(&mut client).await?;
        show_prefix(channel, &target.to_string()).await?;
        show_reload(&mut client, &plugins, &two).await?;
        show_failures(&mut client, &plugins).await?;
    }
    let report = drain.shutdown(Duration::from_secs(5)).await;
    server.await??;
    plugins.shutdown(Duration::from_secs(1)).await?;
    println!("\ntonic-gateway: done, {} calls cut", report.cancelled);
    Ok(())
}

type Client = PluginClient<Channel>;

fn ask(method: &str, word: &str) -> ExecuteRequest {
    ExecuteRequest {
        method: method.into(),
        payload: word.to_owned().into(),
        ..Default::default()
    }
}

async fn call(client: &mut Client, word: &str) -> Result<String, Status> {
    let answer = client.execute(ask("shout", word)).await?.into_inner();
    Ok(String::from_utf8_lossy(&answer.payload).into_owned())
}

fn due(code: Code, status: &Status) -> Result {
    if status.code() == code {
        return Ok(());
    }
    Err(format!("{code:?} was due, and not {status}").into())
}

async fn show_calls(client: &mut Client) -> Result {
    println!(
        "1. A call goes through, and so does the status of one that fails, with its metadata."
    );
    println!("   shout hello -> {}", call(client, "hello").await?);
    let Err(status) = client.execute(ask("whisper", "hello")).await else {
        return Err("whisper was answered".into());
    };
    due(Code::Unimplemented, &status)?;
    let known = status.metadata().get("x-known").ok_or("no metadata")?;
    println!(
        "   whisper -> {:?}: {} [x-known: {known:?}]",
        status.code(),
        status.message()
    );
    Ok(())
}

async fn show_prefix(channel: Channel, target: &str) -> Result {
    println!("\n2. Each path has its plugin.");
    for prefix in ["", "/next"] {
        let origin = format!("http://{target}{prefix}").parse()?;
        let mut client = PluginClient::with_origin(channel.clone(), origin);
        let info = client.info(InfoRequest {}).await?.into_inner();
        println!(
            "   {prefix}/tower_plugins.v1.Plugin/Info -> {} {}",
            info.name, info.version
        );
    }
    Ok(())
}

async fn show_reload(client: &mut Client, plugins: &Plugins, two: &str) -> Result {
    println!("\n3. A stream goes both ways at once, and stays where it is when its plugin moves.");
    let (words, receiver) = mpsc::unbounded_channel();
    words.send(ask("shout", "one"))?;
    let requests = UnboundedReceiverStream::new(receiver);
    let mut shouts = client.execute_stream(requests).await?.into_inner();
    for next in ["two", "three", ""] {
        let shout = shouts.message().await?.ok_or("the stream has ended")?;
        println!("   {}", String::from_utf8_lossy(&shout.payload));
        if next == "three" {
            plugins.reload(config(two, two)?).await?;
            println!("   (moved; a new call: {})", call(client, "hello").await?);
        }
        if !next.is_empty() {
            words.send(ask("shout", next))?;
        }
    }
    drop(words);
    match shouts.message().await? {
        None => Ok(()),
        Some(_) => Err("the stream goes on".into()),
    }
}

async fn show_failures(client: &mut Client, plugins: &Plugins) -> Result {
    println!("\n4. What goes wrong on the way is a status too.");
    let Err(status) = client.execute(ask("sleep", "")).await else {
        return Err("sleep was answered".into());
    };
    due(Code::DeadlineExceeded, &status)?;
    println!("   sleep, which may take 300 ms -> {:?}", status.code());
    plugins.reload(Config::default()).await?;
    let Err(status) = call(client, "hello").await else {
        return Err("nobody was asked, and answered".into());
    };
    due(Code::Unimplemented, &status)?;
    println!(
        "   shout, without a plugin -> {:?}: {}",
        status.code(),
        status.message()
    );
    Ok(())
}
