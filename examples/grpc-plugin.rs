//! A plugin that speaks gRPC: a calculator, reached over TCP and over a Unix socket.
//!
//! `cargo run --example grpc-plugin` starts a tonic server and a set of plugins that are it, and calls them: by
//! the client that tonic generates, which takes a plugin as its channel, in all four shapes; by a client
//! of gRPC's reflection, which any other may stand for; and by typed calls, which need no proto at all.
//! To call the server yourself, keep it running:
//!
//! ```sh
//! cargo run --example grpc-plugin -- --serve 127.0.0.1:3002
//! grpcurl -plaintext localhost:3002 list
//! grpcurl -plaintext -d '{"dividend": 1, "divisor": 0}' localhost:3002 calculator.v1.Calculator/Divide
//! ```
//!
//! The code of `examples/proto/calculator.proto` is checked in, so that the example needs no protoc.

use std::pin::Pin;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tonic::codegen::tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::codegen::tokio_stream::{Stream, StreamExt, iter, once};
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tower_plugins::call::Method;
use tower_plugins::config::{Config, Format};
use tower_plugins::{Plugin, Plugins};
use tower_plugins_proto::v1::plugin_server::{Plugin as Typed, PluginServer};
use tower_plugins_proto::v1::{ExecuteRequest, ExecuteResponse, InfoRequest, InfoResponse};

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
mod calculator {
    include!("generated/calculator.v1.rs");
}

/// What the proto says, for reflection.
const DESCRIPTION: &[u8] = include_bytes!("generated/calculator.binpb");

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

type Numbers = Pin<Box<dyn Stream<Item = Result<Number, Status>> + Send>>;

/// The plugin's side.
#[derive(Clone)]
struct Desk;

fn divide(dividend: f64, divisor: f64) -> Result<f64, Status> {
    if divisor == 0.0 {
        return Err(Status::invalid_argument("division by zero"));
    }
    Ok(dividend / divisor)
}

#[tonic::async_trait]
impl Calculator for Desk {
    async fn divide(&self, request: Request<DivideRequest>) -> Result<Response<Number>, Status> {
        let asked = request.into_inner();
        let value = divide(asked.dividend, asked.divisor)?;
        Ok(Response::new(Number { value }))
    }

    async fn sum(&self, request: Request<Streaming<Number>>) -> Result<Response<Number>, Status> {
        let (mut numbers, mut value) = (request.into_inner(), 0.0);
        while let Some(number) = numbers.message().await? {
            value += number.value;
        }
        Ok(Response::new(Number { value }))
    }

    type CountStream = Numbers;

    async fn count(&self, request: Request<Number>) -> Result<Response<Numbers>, Status> {
        let last = request.into_inner().value;
        let numbers = (1_u32..).map(f64::from).take_while(move |n| *n <= last);
        let numbers = iter(numbers.map(|value| Ok(Number { value })));
        Ok(Response::new(Box::pin(numbers)))
    }

    type RunningSumStream = Numbers;

    async fn running_sum(
        &self,
        request: Request<Streaming<Number>>,
    ) -> Result<Response<Numbers>, Status> {
        let mut sum = 0.0;
        let sums = request.into_inner().map(move |number| {
            sum += number?.value;
            Ok(Number { value: sum })
        });
        Ok(Response::new(Box::pin(sums)))
    }
}

/// The same for callers without a proto: what a typed call calls.
#[tonic::async_trait]
impl Typed for Desk {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse {
            name: "calculator".into(),
            version: "1.0.0".into(),
            capabilities: vec!["divide".into()],
            ..Default::default()
        }))
    }

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<ExecuteResponse>, Status> {
        let request = request.into_inner();
        if request.method != "divide" {
            let message = format!("there is no method {}", request.method);
            return Err(Status::unimplemented(message));
        }
        let Division { dividend, divisor } = serde_json::from_slice(&request.payload)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let quotient = divide(dividend, divisor)?;
        Ok(Response::new(ExecuteResponse {
            payload: quotient.to_string().into(),
            content_type: request.content_type,
            request_id: request.request_id,
            ..Default::default()
        }))
    }

    type ExecuteStreamStream = Pin<Box<dyn Stream<Item = Result<ExecuteResponse, Status>> + Send>>;

    async fn execute_stream(
        &self,
        _: Request<Streaming<ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStreamStream>, Status> {
        Err(Status::unimplemented("no method here takes a stream"))
    }
}

fn server() -> Result<Router> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTION)
        .build_v1()?;
    Ok(Server::builder()
        .add_service(CalculatorServer::new(Desk))
        .add_service(PluginServer::new(Desk))
        .add_service(reflection))
}

#[derive(Serialize, Deserialize)]
struct Division {
    dividend: f64,
    divisor: f64,
}

/// A typed call: the method, what it takes, and what it answers.
static DIVIDE: Method<Division, f64> = Method::post("/divide").idempotent();

/// Four shapes, by the client that tonic generates.
async fn generated(plugin: Plugin) -> Result {
    println!("{}, by the generated client:", plugin.name());
    // The origin does not matter: each endpoint has its own.
    let mut client = CalculatorClient::with_origin(plugin, "http://plugin".parse()?)
        // The two limits of tonic's own, beside those of the config.
        .max_decoding_message_size(1 << 20)
        .max_encoding_message_size(1 << 20);
    let (dividend, divisor) = (1.0, 8.0);
    let answer = client.divide(DivideRequest { dividend, divisor }).await?;
    println!("  1 / 8 = {}", answer.into_inner().value);
    let by_zero = DivideRequest {
        dividend,
        divisor: 0.0,
    };
    match client.divide(by_zero).await {
        Err(status) if status.code() == Code::InvalidArgument => {
            println!("  1 / 0 is refused: {}", status.message());
        }
        other => return Err(format!("1 / 0 is no number, and not {other:?}").into()),
    }
    let numbers = || iter([1.0, 2.0, 3.0, 4.0].map(|value| Number { value }));
    let sum = client.sum(numbers()).await?;
    println!("  1 + 2 + 3 + 4 = {}", sum.into_inner().value);
    let count = client.count(Number { value: 5.0 }).await?;
    println!("  a count: {}", all(count.into_inner()).await?);
    let sums = client.running_sum(numbers()).await?;
    println!("  a running sum: {}", all(sums.into_inner()).await?);
    Ok(())
}

async fn all(mut numbers: Streaming<Number>) -> Result<String, Status> {
    let mut text = Vec::new();
    while let Some(number) = numbers.message().await? {
        text.push(number.value.to_string());
    }
    Ok(text.join(", "))
}

/// Which services the plugin has, as it says itself.
async fn reflected(plugin: Plugin) -> Result {
    let mut client = ServerReflectionClient::with_origin(plugin, "http://plugin".parse()?);
    let ask = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut answers = client.server_reflection_info(once(ask)).await?.into_inner();
    let answer = answers
        .message()
        .await?
        .and_then(|all| all.message_response);
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        return Err("it does not say which services it has".into());
    };
    for service in list.service {
        println!("it has the service {}", service.name);
    }
    Ok(())
}

/// Without a proto.
async fn typed(plugin: &Plugin) -> Result {
    let info = plugin.info().await?;
    let version = info.version.unwrap_or_default();
    println!(
        "it says of itself: {} {version}, which can {:?}",
        info.name, info.capabilities
    );
    let (dividend, divisor) = (22.0, 7.0);
    let quotient = plugin
        .invoke(&DIVIDE, &Division { dividend, divisor })
        .await?;
    println!("by a typed call, 22 / 7 = {quotient}");
    let by_zero = Division {
        dividend,
        divisor: 0.0,
    };
    match plugin.invoke(&DIVIDE, &by_zero).await {
        Err(error) if error.answered_code() == Some(Code::InvalidArgument as i32) => {
            println!("22 / 0 is refused: {error}");
            Ok(())
        }
        other => Err(format!("22 / 0 is no number, and not {other:?}").into()),
    }
}

#[tokio::main]
async fn main() -> Result {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--serve") {
        let address = arguments.next().unwrap_or_else(|| "127.0.0.1:3002".into());
        println!("serving on {address}");
        return Ok(server()?.serve(address.parse()?).await?);
    }
    let tcp = TcpListener::bind("127.0.0.1:0").await?;
    let target = tcp.local_addr()?;
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("calculator.sock");
    let unix = UnixListener::bind(&socket)?;
    let tcp = server()?.serve_with_incoming(TcpListenerStream::new(tcp));
    let unix = server()?.serve_with_incoming(UnixListenerStream::new(unix));
    let servers = [tokio::spawn(tcp), tokio::spawn(unix)];

    let config = format!(
        "
        plugins:
          calculator:
            transport: grpc
            endpoint: {target}
            grpc: {{ max_response_message: 1MiB }}
          calculator-unix:
            transport: grpc
            endpoint: unix:{}
        ",
        socket.display()
    );
    let config = Config::parse(&config, Format::Yaml)?;
    let plugins = Plugins::builder().start(config).await?;
    for name in ["calculator", "calculator-unix"] {
        generated(plugins.plugin(name)).await?;
    }
    reflected(plugins.plugin("calculator")).await?;
    typed(&plugins.plugin("calculator-unix")).await?;
    for server in servers {
        server.abort();
    }
    println!("grpc-plugin: 14 calls, three of them refused as they should be");
    Ok(())
}
