//! gRPC to another process on this machine: a generated client over tonic's channel, and over a plugin.

use bytes::Bytes;
use futures_util::stream;
use tokio::runtime::Runtime;
use tonic::client::GrpcService;
use tonic::codegen::{Body, StdError};
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tower_plugins::Plugins;
use tower_plugins::config::{Config, Format};
use tower_plugins_proto::v1::ExecuteRequest;
use tower_plugins_proto::v1::plugin_client::PluginClient;

use super::{Group, full};
use crate::Result;
use crate::harness::{Calls, Run, Variant, in_turn, runtime, thread_cpu};
use crate::server::{GRPC, Server};

pub(super) const GROUP: Group = Group {
    name: "grpc",
    about: "An echo of 200 bytes over gRPC by a server in another process, a unary call at a time, or a message of one stream that many go through both ways at once: CPU time of the client's only thread, which is pinned to one CPU, the server to another.",
    variants,
    prepare: Some(|| crate::harness::pin(0)),
    summary: None,
};

const UNARY: Calls = Calls::Counted(500);
const MESSAGES: Calls = Calls::Counted(5000);

/// A policy without a layer that can be left out.
const BARE: &str = "
    auth: { method: api-key, api_key: a-key-that-is-no-secret }
    retry: off
    circuit_breaker: off
";

fn variants() -> Vec<Variant> {
    // One that may be repeated, so that retry is armed for it.
    let idempotent = "retry: { idempotent: [/tower_plugins.v1.Plugin/Execute], ";
    let armed = full::ARMED.replace("retry: { ", idempotent);
    let mut variants = vec![
        Variant::new("raw-unary", "raw-unary", UNARY, || {
            let (runtime, server, client) = raw()?;
            Ok(unary(runtime, server, client))
        }),
        Variant::new("raw-stream", "raw-stream", MESSAGES, || {
            let (runtime, server, client) = raw()?;
            Ok(messages(runtime, server, client))
        }),
    ];
    for (name, policy) in [("bare", BARE.to_owned()), ("full", armed)] {
        let stream_policy = policy.clone();
        variants.push(Variant::new(
            format!("{name}-unary"),
            "raw-unary",
            UNARY,
            move || {
                let (runtime, server, plugins) = plugins(&policy)?;
                let client = PluginClient::new(plugins.plugin("full"));
                Ok(unary(runtime, (server, plugins), client))
            },
        ));
        variants.push(Variant::new(
            format!("{name}-stream"),
            "raw-stream",
            MESSAGES,
            move || {
                let (runtime, server, plugins) = plugins(&stream_policy)?;
                let client = PluginClient::new(plugins.plugin("full"));
                Ok(messages(runtime, (server, plugins), client))
            },
        ));
    }
    variants
}

/// tonic's channel, with nothing around it.
fn raw() -> Result<(Runtime, Server, PluginClient<tonic::transport::Channel>)> {
    let (runtime, server) = (runtime()?, Server::start(GRPC)?);
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address))?;
    let channel = runtime.block_on(endpoint.connect())?;
    Ok((runtime, server, PluginClient::new(channel)))
}

fn plugins(policy: &str) -> Result<(Runtime, Server, Plugins)> {
    let (runtime, server) = (runtime()?, Server::start(GRPC)?);
    let text = format!(
        "
plugins:
  - name: full
    transport: grpc
    endpoint: {}
    connection: {{ request_timeout: 1h }}
{policy}",
        server.address
    );
    let config = Config::parse(&text, Format::Yaml)?;
    let plugins = runtime.block_on(Plugins::builder().start(config))?;
    Ok((runtime, server, plugins))
}

static PAYLOAD: [u8; 200] = [b'x'; 200];

fn message() -> ExecuteRequest {
    ExecuteRequest {
        payload: Bytes::from_static(&PAYLOAD),
        ..ExecuteRequest::default()
    }
}

/// With what a plugin's credentials send, so that the bytes on the wire are equal.
fn with_key<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let key = MetadataValue::from_static("a-key-that-is-no-secret");
    request.metadata_mut().insert("x-api-key", key);
    request
}

/// A body that generated clients read.
trait Answer: Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static {}

impl<B: Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static> Answer for B {}

/// Calls one after the other.
fn unary<S>(runtime: Runtime, alive: impl Sized + 'static, mut client: PluginClient<S>) -> Run
where
    S: GrpcService<tonic::body::Body, ResponseBody: Answer> + 'static,
{
    in_turn(runtime, async move || {
        let _alive = &alive;
        let answer = client.execute(with_key(message())).await?;
        std::hint::black_box(answer.into_inner());
        Ok(())
    })
}

/// One stream with so many messages each way.
fn messages<S>(runtime: Runtime, alive: impl Sized + 'static, mut client: PluginClient<S>) -> Run
where
    S: GrpcService<tonic::body::Body, ResponseBody: Answer> + 'static,
{
    Box::new(move |count| {
        let _alive = &alive;
        let begun = thread_cpu();
        runtime.block_on(async {
            let requests = stream::iter((0..count).map(|_| message()));
            let answers = client.execute_stream(with_key(requests)).await?;
            let mut answers = answers.into_inner();
            for _ in 0..count {
                let answer = answers.message().await?.ok_or("the stream is too short")?;
                std::hint::black_box(answer);
            }
            Ok::<_, crate::BoxError>(())
        })?;
        Ok(Some((thread_cpu() - begun).into()))
    })
}
