//! A tonic server with layers around its services, and a tonic client with layers around its channel.
//!
//! `cargo run --example tonic-layers` starts the server on a free port, calls it, says what happens
//! and ends. To call it yourself, keep it running:
//!
//! ```sh
//! cargo run --example tonic-layers -- --serve 127.0.0.1:3001
//! grpcurl -plaintext -import-path proto -proto tower_plugins/v1/plugin.proto \
//!     -d '{"method": "echo", "payload": "aGVsbG8="}' localhost:3001 tower_plugins.v1.Plugin/Execute
//! ```
//!
//! `echo` answers, `slow` meets the deadline, `fail` is UNAVAILABLE; the eleventh call of a second
//! is RESOURCE_EXHAUSTED. The service is one whose code is generated in this repository, so that the
//! example needs no protoc; any other goes the same way.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::ServiceBuilder;
use tower::util::MapRequest;
use tower_plugins_layers::breaker::{BreakerHandle, BreakerPolicy};
use tower_plugins_layers::retry::Backoff;
use tower_plugins_layers::{
    Breaker, BreakerLayer, ConcurrencyLayer, Deadline, DeadlineLayer, DrainHandle, DrainLayer,
    RateLimitLayer, ReplayBody, Respond, RespondLayer, Retry, RetryLayer, RetryPolicy, TraceLayer,
};
use tower_plugins_proto::v1::plugin_client::PluginClient;
use tower_plugins_proto::v1::plugin_server::{Plugin, PluginServer};
use tower_plugins_proto::v1::{ExecuteRequest, ExecuteResponse, InfoRequest, InfoResponse};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Serves on `listener` until told to stop.
async fn serve(
    listener: TcpListener,
    service: Service,
    drain: DrainHandle,
    stopped: oneshot::Receiver<()>,
) -> Result<(), tonic::transport::Error> {
    // The first is outermost.
    let layers = ServiceBuilder::new()
        // Layers refuse by errors: this makes them gRPC statuses.
        .layer(RespondLayer::new())
        // Metrics and spans of each call.
        .layer(TraceLayer::new("echo"))
        // Counts calls until their trailers, for the end of the program.
        .layer(DrainLayer::new(drain))
        // A second for each call, or what the client's grpc-timeout says if that is less.
        .layer(DeadlineLayer::new(Duration::from_secs(1)))
        // 10 at once, and 10 a second in the long run.
        .layer(RateLimitLayer::new(10.0, 10))
        // At most 100 calls in the service.
        .layer(ConcurrencyLayer::new(100))
        .into_inner();
    Server::builder()
        .layer(layers)
        .add_service(PluginServer::new(service))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), async {
            stopped.await.ok();
        })
        .await
}

/// What the client calls through: layers around its channel, the first outermost.
type Outbound = Respond<Deadline<Retry<Breaker<MapRequest<Channel, AsChannelTakes>>>>>;
/// Retry's bodies can be sent again, and a channel takes those of tonic.
type AsChannelTakes = fn(http::Request<ReplayBody<Body>>) -> http::Request<Body>;
type Client = PluginClient<Outbound>;

/// A client over `channel`, and the view of its breaker.
fn client(channel: Channel) -> (Client, BreakerHandle) {
    let breaker = BreakerLayer::new(
        BreakerPolicy::new()
            .consecutive_failures(4)
            .recovery(Duration::from_millis(500))
            .success_threshold(1),
    );
    let handle = breaker.handle();
    let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(50));
    let retry = RetryPolicy::new()
        .max_retries(3)
        .backoff(backoff)
        // A gRPC call is a POST, which is repeated only where that is known to do no harm.
        .idempotent(["tower_plugins.v1.Plugin/Execute"]);
    let as_channel_takes: AsChannelTakes = |request| request.map(Body::new);
    let outbound = ServiceBuilder::new()
        // A refusal of the layers below is a status to the generated client, as the server's own are.
        .layer(RespondLayer::new())
        // For the call with all its attempts.
        .layer(DeadlineLayer::new(Duration::from_secs(2)))
        .layer(RetryLayer::new(retry))
        // Inside of retry, so that it sees each attempt.
        .layer(breaker)
        .map_request(as_channel_takes)
        .service(channel);
    (Client::new(outbound), handle)
}

#[tokio::main]
async fn main() -> Result {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let address = match arguments.as_slice() {
        [] => None,
        [serve, address] if serve == "--serve" => Some(address.as_str()),
        _ => return Err("usage: tonic-layers [--serve ADDRESS]".into()),
    };
    let (drain, service) = (DrainHandle::new(), Service::default());
    let listener = TcpListener::bind(address.unwrap_or("127.0.0.1:0")).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(listener, service.clone(), drain.clone(), stopped));

    if address.is_some() {
        println!("{url} serves until Ctrl-C");
        tokio::signal::ctrl_c().await?;
        println!("draining {} calls", drain.active());
        drained(&drain).await;
    } else {
        let (mut client, breaker) = client(Endpoint::from_shared(url)?.connect().await?);
        show_retry_and_deadline(&mut client, &service).await?;
        show_breaker(&mut client, &service, &breaker).await?;
        show_rate_limit(&client).await?;
        show_drain(&mut client, &drain).await?;
    }
    drop(stop);
    server.await??;
    println!("\ntonic-layers: done");
    Ok(())
}

/// Lets what is under way end within five seconds, and ends the rest.
async fn drained(drain: &DrainHandle) {
    drain.close();
    let in_time = tokio::time::timeout(Duration::from_secs(5), drain.drained()).await;
    if in_time.is_err() {
        println!("cancelled {} calls", drain.cancel());
        drain.drained().await;
    }
}

async fn show_retry_and_deadline(client: &mut Client, service: &Service) -> Result {
    say("1. An answer goes through the layers of both sides.");
    expect(Code::Ok, call(client, "echo").await)?;

    say("2. The server is unavailable twice, and the client's retry makes up for it.");
    service.failures.store(2, Ordering::Relaxed);
    let before = service.calls();
    expect(Code::Ok, call(client, "echo").await)?;
    println!(
        "   The server was called {} times.",
        service.calls() - before
    );

    say("3. The method `slow` would take 10 s. The server's deadline is 1 s.");
    expect(Code::DeadlineExceeded, call(client, "slow").await)
}

async fn show_breaker(client: &mut Client, service: &Service, breaker: &BreakerHandle) -> Result {
    say("4. The server fails for good. Four attempts in a row open the client's circuit.");
    expect(Code::Ok, call(client, "echo").await)?;
    expect(Code::Unavailable, call(client, "fail").await)?;
    println!("   The circuit is {}.", breaker.state().as_str());
    let before = service.calls();
    expect(Code::Unavailable, call(client, "echo").await)?;
    println!(
        "   The server was called {} times.",
        service.calls() - before
    );
    let wait = breaker.retry_after(Instant::now()).unwrap_or_default();
    println!(
        "   After {} ms the next call is a probe, and it succeeds.",
        wait.as_millis()
    );
    tokio::time::sleep(wait).await;
    expect(Code::Ok, call(client, "echo").await)?;
    println!("   The circuit is {}.", breaker.state().as_str());
    Ok(())
}

async fn show_rate_limit(client: &Client) -> Result {
    say("5. Twenty calls come at once, and the server has room for about 10.");
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.execute(ask("echo")).await })
        })
        .collect();
    let (mut answered, mut refused) = (0, None);
    for call in calls {
        match call.await? {
            Ok(_) => answered += 1,
            Err(status) => refused = Some(status),
        }
    }
    println!("   {answered} of 20 calls were answered. One of the others got:");
    let refused = refused.ok_or("no call was refused")?;
    let after = refused.metadata().get("retry-after").cloned();
    print!("   echo");
    expect(Code::ResourceExhausted, Err(refused))?;
    let after = after.ok_or("no retry-after")?.to_str()?.to_owned();
    println!("   retry-after is {after} s, and then there is room again.");
    tokio::time::sleep(Duration::from_secs(after.parse()?)).await;
    expect(Code::Ok, call(&mut client.clone(), "echo").await)
}

async fn show_drain(client: &mut Client, drain: &DrainHandle) -> Result {
    say("6. The server is to end while a stream is open.");
    let (sender, receiver) = mpsc::channel(1);
    sender.send(ask("echo")).await?;
    let answers = client.execute_stream(ReceiverStream::new(receiver)).await?;
    let mut answers = answers.into_inner();
    println!("   first answer: {}", answers.message().await?.is_some());
    println!("   calls under way: {}", drain.active());
    drain.close();
    println!("   From now on new calls are refused:");
    expect(Code::Unavailable, call(client, "echo").await)?;
    sender.send(ask("")).await?;
    println!(
        "   The stream goes on: {}",
        answers.message().await?.is_some()
    );
    drop(sender);
    println!(
        "   and comes to its end: {}",
        answers.message().await?.is_none()
    );
    drained(drain).await;
    println!("   calls under way: {}", drain.active());
    Ok(())
}

async fn call(client: &mut Client, method: &str) -> Result<Bytes, Status> {
    let began = Instant::now();
    let answer = client.execute(ask(method)).await;
    let took = began.elapsed().as_millis();
    print!("   {method} after {took} ms");
    Ok(answer?.into_inner().payload)
}

/// Says what came of a call, and fails if that is not `code`.
fn expect(code: Code, answer: Result<Bytes, Status>) -> Result {
    let got = match answer {
        Ok(payload) => {
            println!(" -> {}", String::from_utf8_lossy(&payload));
            Code::Ok
        }
        Err(status) => {
            println!(" -> {:?}: {}", status.code(), status.message());
            status.code()
        }
    };
    if got == code {
        return Ok(());
    }
    Err(format!("{code:?} was due").into())
}

fn ask(method: &str) -> ExecuteRequest {
    ExecuteRequest {
        method: method.to_owned(),
        payload: "hello".into(),
        ..Default::default()
    }
}

fn answer(payload: Bytes) -> ExecuteResponse {
    ExecuteResponse {
        payload,
        ..Default::default()
    }
}

/// The service: says what it is told.
#[derive(Clone, Default)]
struct Service {
    calls: Arc<AtomicU32>,
    /// How many of the next calls fail.
    failures: Arc<AtomicU32>,
}

impl Service {
    fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    fn fails(&self) -> bool {
        let one_less = |failures: u32| failures.checked_sub(1);
        (self.failures)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
    }
}

#[tonic::async_trait]
impl Plugin for Service {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse::default()))
    }

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<ExecuteResponse>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let request = request.into_inner();
        if request.method == "slow" {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        if request.method == "fail" || self.fails() {
            return Err(Status::unavailable("not today"));
        }
        Ok(Response::new(answer(request.payload)))
    }

    type ExecuteStreamStream = Pin<Box<dyn Stream<Item = Result<ExecuteResponse, Status>> + Send>>;

    async fn execute_stream(
        &self,
        request: Request<Streaming<ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStreamStream>, Status> {
        let answers = (request.into_inner()).map(|request| Ok(answer(request?.payload)));
        Ok(Response::new(Box::pin(answers)))
    }
}

fn say(step: &str) {
    println!("\n{step}");
}
