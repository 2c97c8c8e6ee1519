use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use futures_util::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tower_plugins::config::Config;
use tower_plugins::{Plugin, Plugins};
use tower_plugins_layers::{DeadlineLayer, DrainHandle, DrainLayer, RateLimitLayer, RespondLayer};
use tower_plugins_proto::v1::plugin_client::PluginClient;
use tower_plugins_proto::v1::plugin_server::{Plugin as Served, PluginServer};
use tower_plugins_proto::v1::{ExecuteRequest, ExecuteResponse, InfoRequest, InfoResponse};

use crate::support::{config, within};

struct Service;

type Answers = Pin<Box<dyn Stream<Item = Result<ExecuteResponse, Status>> + Send>>;

fn ask(method: &str, payload: &str) -> ExecuteRequest {
    ExecuteRequest {
        method: method.to_owned(),
        payload: payload.to_owned().into(),
        ..Default::default()
    }
}

fn answer(payload: impl Into<bytes::Bytes>) -> ExecuteResponse {
    ExecuteResponse {
        payload: payload.into(),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Served for Service {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse {
            name: "real".to_owned(),
            ..Default::default()
        }))
    }

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<ExecuteResponse>, Status> {
        let request = request.into_inner();
        match &*request.method {
            "echo" => Ok(Response::new(answer(request.payload))),
            "broken" => Err(Status::internal("broken")),
            "slow" => std::future::pending().await,
            _ => {
                let mut status = Status::permission_denied("not 100 % you: ä");
                status
                    .metadata_mut()
                    .insert("x-why", "because".parse().unwrap());
                Err(status)
            }
        }
    }

    type ExecuteStreamStream = Answers;

    async fn execute_stream(
        &self,
        request: Request<Streaming<ExecuteRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap();
        let (count, end): (usize, Answers) = match &*first.method {
            "echo" => {
                let rest = requests.map(|request| Ok(answer(request?.payload)));
                let all = futures_util::stream::iter([Ok(answer(first.payload))]).chain(rest);
                return Ok(Response::new(Box::pin(all)));
            }
            "count" => (1_000, Box::pin(futures_util::stream::empty())),
            "silent" => (1, Box::pin(futures_util::stream::pending())),
            _ => {
                let failed = Err(Status::data_loss("half of it"));
                (2, Box::pin(futures_util::stream::iter([failed])))
            }
        };
        let some = (0..count).map(|number| Ok(answer(number.to_string())));
        Ok(Response::new(Box::pin(
            futures_util::stream::iter(some).chain(end),
        )))
    }
}

/// A tonic server, and a plugin `p` that is it.
struct Real {
    plugins: Plugins,
    url: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Real {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Real {
    async fn start(keys: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(PluginServer::new(Service));
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tokio::spawn(async { server.serve_with_incoming(incoming).await.unwrap() });
        let plugins = Plugins::builder().start(at(&url, keys)).await.unwrap();
        Self {
            plugins,
            url,
            server,
        }
    }

    fn client(&self) -> PluginClient<Plugin> {
        client(self.plugins.plugin("p"))
    }
}

fn client(plugin: Plugin) -> PluginClient<Plugin> {
    PluginClient::with_origin(plugin, "http://plugin".parse().unwrap())
}

fn at(url: &str, keys: &str) -> Config {
    config(&format!(
        "plugins: {{ p: {{ transport: http, endpoint: \"{url}\", connection: {{ protocol: http2 }}, {keys} }} }}"
    ))
}

async fn execute(client: &mut PluginClient<Plugin>, method: &str) -> Result<String, Status> {
    let answer = within(client.execute(ask(method, "payload"))).await?;
    Ok(String::from_utf8(answer.into_inner().payload.to_vec()).unwrap())
}

/// A stream begun with `method`, whose first answer is here.
async fn stream(
    client: &mut PluginClient<Plugin>,
    method: &str,
) -> (
    mpsc::UnboundedSender<ExecuteRequest>,
    Streaming<ExecuteResponse>,
) {
    let (sender, receiver) = mpsc::unbounded_channel();
    sender.send(ask(method, "first")).unwrap();
    let requests = UnboundedReceiverStream::new(receiver);
    let mut answers = within(client.execute_stream(requests))
        .await
        .unwrap()
        .into_inner();
    within(answers.message()).await.unwrap().unwrap();
    (sender, answers)
}

#[tokio::test]
async fn a_generated_client_calls_a_plugin() {
    let real = Real::start("").await;
    let mut client = real.client();
    let info = within(client.info(InfoRequest {})).await.unwrap();
    assert_eq!(info.into_inner().name, "real");
    assert_eq!(execute(&mut client, "echo").await.unwrap(), "payload");
    let large = "x".repeat(3 << 20);
    let echoed = within(client.execute(ask("echo", &large))).await.unwrap();
    assert_eq!(echoed.into_inner().payload, large);
}

#[tokio::test]
async fn the_plugins_own_status_arrives_whole() {
    let real = Real::start("").await;
    let status = within(real.client().execute(ask("refuse", "")))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.message(), "not 100 % you: ä");
    assert_eq!(status.metadata().get("x-why").unwrap(), "because");
}

#[tokio::test]
async fn streams_go_through_both_ways() {
    let real = Real::start("").await;
    let mut client = real.client();
    let (_, mut answers) = stream(&mut client, "count").await;
    let mut count = 1;
    while let Some(answer) = within(answers.message()).await.unwrap() {
        assert_eq!(answer.payload, count.to_string());
        count += 1;
    }
    assert_eq!(count, 1_000);

    let (sender, mut answers) = stream(&mut client, "echo").await;
    for word in ["one", "two", "three"] {
        sender.send(ask("", word)).unwrap();
        let answer = within(answers.message()).await.unwrap().unwrap();
        assert_eq!(answer.payload, word);
    }
    drop(sender);
    assert!(within(answers.message()).await.unwrap().is_none());
    assert_eq!(real.plugins.active_requests("p"), 0);
}

#[tokio::test]
async fn a_status_in_the_trailers_of_a_stream_arrives() {
    let real = Real::start("").await;
    let (_sender, mut answers) = stream(&mut real.client(), "fail").await;
    assert!(within(answers.message()).await.unwrap().is_some());
    let status = within(answers.message()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::DataLoss, "half of it")
    );
    assert_eq!(real.plugins.active_requests("p"), 0);
}

#[tokio::test]
async fn the_clients_own_deadline_is_kept() {
    let real = Real::start("").await;
    let mut request = Request::new(ask("slow", ""));
    request.set_timeout(Duration::from_millis(50));
    let status = within(real.client().execute(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");

    let mut request = Request::new(futures_util::stream::iter([ask("silent", "")]));
    request.set_timeout(Duration::from_millis(50));
    let answers = within(real.client().execute_stream(request)).await;
    // Even its head may come too late.
    let status = match answers {
        Ok(mut answers) => loop {
            match within(answers.get_mut().message()).await {
                Ok(answer) => assert!(answer.is_some()),
                Err(status) => break status,
            }
        },
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(real.plugins.active_requests("p"), 0);
}

#[tokio::test]
async fn what_is_refused_here_has_its_own_code() {
    let real = Real::start("rate_limit: { requests_per_second: 0.001, burst_size: 1 }").await;
    let mut client = real.client();
    execute(&mut client, "echo").await.unwrap();
    let status = execute(&mut client, "echo").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let said = status.message().matches("rate limit").count();
    assert_eq!(said, 1, "{status:?}");

    let breaker = at(&real.url, "circuit_breaker: { failure_threshold: 1 }");
    real.plugins.reload(breaker).await.unwrap();
    assert_eq!(
        execute(&mut client, "broken").await.unwrap_err().code(),
        Code::Internal
    );
    let status = execute(&mut client, "echo").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("circuit breaker"), "{status:?}");

    real.plugins
        .reload(at(
            &real.url,
            "concurrency: { max_concurrent: 1 }, circuit_breaker: { enabled: false }",
        ))
        .await
        .unwrap();
    let (_sender, _answers) = stream(&mut client, "silent").await;
    let status = execute(&mut client, "echo").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);

    real.plugins.reload(Config::default()).await.unwrap();
    assert_eq!(
        execute(&mut client, "echo").await.unwrap_err().code(),
        Code::Unimplemented
    );
    real.plugins.shutdown(Duration::ZERO).await.unwrap();
    assert_eq!(
        execute(&mut client, "echo").await.unwrap_err().code(),
        Code::Unavailable
    );
}

/// A tonic server in layers that refuse by errors.
#[tokio::test]
async fn layers_around_a_tonic_server_refuse_with_their_codes() {
    let drain = DrainHandle::new();
    let layers = tower::ServiceBuilder::new()
        .layer(RespondLayer::new())
        .layer(DrainLayer::new(drain.clone()))
        .layer(DeadlineLayer::new(Duration::from_millis(200)))
        .layer(RateLimitLayer::new(0.001, 3));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .layer(layers.into_inner())
        .add_service(PluginServer::new(Service))
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    let server = tokio::spawn(server);
    let keys = "retry: { enabled: false }, circuit_breaker: { enabled: false }";
    let plugins = Plugins::builder().start(at(&url, keys)).await.unwrap();
    let mut client = client(plugins.plugin("p"));

    assert_eq!(execute(&mut client, "echo").await.unwrap(), "payload");
    let status = execute(&mut client, "slow").await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let status = execute(&mut client, "refuse").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "the service's own");
    let status = execute(&mut client, "echo").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(status.message(), "rate limit reached");
    assert!(status.metadata().contains_key("retry-after"));
    drain.close();
    let status = execute(&mut client, "echo").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    within(drain.drained()).await;
    server.abort();
}

#[tokio::test]
async fn a_plugin_that_cannot_be_reached_is_unavailable() {
    let real = Real::start("").await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    real.plugins
        .reload(at(&nobody, "retry: { enabled: false }"))
        .await
        .unwrap();
    let status = execute(&mut real.client(), "echo").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_stream_that_is_cut_says_why() {
    let real = Real::start("drain_timeout: 50ms").await;
    let mut client = real.client();
    let (_sender, mut answers) = stream(&mut client, "silent").await;
    let report = real
        .plugins
        .reload(at(&real.url, "drain_timeout: 51ms"))
        .await
        .unwrap();
    let status = within(answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("drain"), "{status:?}");
    let retired = report.retirement.wait().await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (1, 0));

    let mut idle = at(&real.url, "");
    idle.plugins
        .get_mut("p")
        .unwrap()
        .policy
        .stream_idle_timeout = Some(Duration::from_millis(50));
    real.plugins.reload(idle).await.unwrap();
    let (_sender, mut answers) = stream(&mut client, "silent").await;
    let status = within(answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

#[tokio::test]
async fn a_stream_outlives_the_reload_of_its_plugin() {
    let real = Real::start("").await;
    let mut client = real.client();
    let (sender, mut answers) = stream(&mut client, "echo").await;
    for number in 0..20 {
        let keys = format!("drain_timeout: {}s", 60 + number);
        real.plugins.reload(at(&real.url, &keys)).await.unwrap();
        sender.send(ask("", &number.to_string())).unwrap();
        let answer = within(answers.message()).await.unwrap().unwrap();
        assert_eq!(answer.payload, number.to_string());
    }
    drop(sender);
    assert!(within(answers.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn grpc_goes_through_a_route_with_its_trailers() {
    let real = Real::start("").await;
    let route = real.plugins.plugin("p").into_route();
    let missing = real.plugins.plugin("q").into_route();
    let app = Router::new().route_service("/tower_plugins.v1.Plugin/Info", missing);
    let app = app.route_service("/tower_plugins.v1.Plugin/{*method}", route);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let front = Plugins::builder().start(at(&url, "")).await.unwrap();
    let mut client = client(front.plugin("p"));
    assert_eq!(execute(&mut client, "echo").await.unwrap(), "payload");
    let status = execute(&mut client, "refuse").await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "not 100 % you: ä")
    );
    let (_sender, mut answers) = stream(&mut client, "fail").await;
    assert!(within(answers.message()).await.unwrap().is_some());
    assert_eq!(
        within(answers.message()).await.unwrap_err().code(),
        Code::DataLoss
    );
    let status = within(client.info(InfoRequest {})).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("`q`"), "{status:?}");
    server.abort();
}
