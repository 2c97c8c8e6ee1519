//! Streams of requests and of answers, over gRPC.

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tower_plugins::call::Method;
use tower_plugins::config::{Config, Format};
use tower_plugins::{Error, Plugins};
use tower_plugins_sdk::router::{CallError, Input, Kind, Messages, Router};
use tower_plugins_sdk::v1::ExecuteRequest;
use tower_plugins_sdk::v1::plugin_client::PluginClient;

use super::support::{Dropped, post, read, within};

static COUNT: Method<u64, u64> = Method::post("/count");
static SUM: Method<u64, u64> = Method::post("/sum");
static SUMS: Method<u64, u64> = Method::post("/sums");
static ENDLESS: Method<u64, u64> = Method::post("/endless");

async fn count(Input(last): Input<u64>) -> impl Stream<Item = Result<u64, CallError>> {
    let numbers = stream::iter((1..=last).map(Ok));
    let end = CallError::new(Kind::Aborted, "ten is enough");
    let end = stream::iter((last > 10).then_some(Err(end)));
    numbers.take(10).chain(end)
}

async fn sum(numbers: Messages<u64>) -> Result<u64, CallError> {
    numbers.try_fold(0, async |sum, n| Ok(sum + n)).await
}

async fn sums(numbers: Messages<u64>) -> impl Stream<Item = Result<u64, CallError>> {
    numbers.scan(0, |sum, number| {
        let answer = number.map(|number| {
            *sum += number;
            assert!(*sum < 1000, "that is too much");
            *sum
        });
        std::future::ready(Some(answer))
    })
}

fn router() -> Router {
    Router::new()
        .method("count", count)
        .method("sum", sum)
        .method("sums", sums)
}

async fn start(router: Router) -> Plugins {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    tokio::spawn(axum::serve(tcp, router.into_axum()).into_future());
    let yaml = format!("plugins: {{ p: {{ transport: grpc, endpoint: '{address}' }} }}");
    let config = Config::parse(&yaml, Format::Yaml).unwrap();
    Plugins::builder().start(config).await.unwrap()
}

async fn all(
    plugins: &Plugins,
    method: &Method<u64, u64>,
    sent: &[u64],
) -> (Vec<u64>, Option<Error>) {
    let plugin = plugins.plugin("p");
    let answers = plugin.invoke_stream(method, stream::iter(sent.to_vec()));
    let mut answers = match within(answers.into_future()).await {
        Ok(answers) => answers,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut all = Vec::new();
    while let Some(answer) = within(answers.next()).await {
        match answer {
            Ok(answer) => all.push(answer),
            Err(error) => return (all, Some(error)),
        }
    }
    (all, None)
}

fn code(error: Option<Error>) -> Option<i32> {
    error.and_then(|error| error.answered_code())
}

#[tokio::test]
async fn streams_go_both_ways_and_end_with_their_error() {
    let plugins = start(router()).await;
    let (answers, error) = all(&plugins, &COUNT, &[4]).await;
    assert_eq!((answers, code(error)), (vec![1, 2, 3, 4], None));
    let (answers, error) = all(&plugins, &SUM, &[1, 2, 3]).await;
    assert_eq!((answers, code(error)), (vec![6], None));
    let (answers, error) = all(&plugins, &SUMS, &[1, 2, 3]).await;
    assert_eq!((answers, code(error)), (vec![1, 3, 6], None));

    let (answers, error) = all(&plugins, &COUNT, &[11]).await;
    let aborted = Some(tonic::Code::Aborted as i32);
    assert_eq!((answers.len(), code(error)), (10, aborted));
}

#[tokio::test]
async fn a_stream_of_answers_that_panics_ends_with_an_internal_error() {
    let plugins = start(router()).await;
    let (answers, error) = all(&plugins, &SUMS, &[1, 2, 1000]).await;
    let internal = Some(tonic::Code::Internal as i32);
    assert_eq!((answers, code(error)), (vec![1, 3], internal));
}

#[tokio::test]
async fn one_request_is_a_stream_of_one_and_a_stream_of_answers_is_refused_elsewhere() {
    let app = router().into_axum();
    assert_eq!(read(post(&app, "/sum", "7").await).await, (200, 7.into()));
    let (status, body) = read(post(&app, "/count", "7").await).await;
    assert_eq!(status, 501);
    let error = body["error"].as_str().unwrap();
    assert_eq!(
        error,
        "count answers with a stream: call it by ExecuteStream"
    );
}

/// A router whose method answers without end, and what is told when such an answer is dropped.
fn endless() -> (Router, mpsc::Receiver<&'static str>) {
    let (tell, told) = mpsc::channel(8);
    let endless = move |Input(_): Input<u64>| {
        let dropped = Dropped(tell.clone());
        let numbers = stream::iter(0..).then(move |n| {
            let _held = &dropped;
            async move {
                tokio::task::yield_now().await;
                Ok::<u64, CallError>(n)
            }
        });
        std::future::ready(numbers)
    };
    (Router::new().method("endless", endless), told)
}

#[tokio::test]
async fn dropping_the_answers_drops_the_stream_at_the_plugin() {
    let (router, mut told) = endless();
    let plugins = start(router).await;
    let plugin = plugins.plugin("p");
    let answers = plugin.invoke_stream(&ENDLESS, stream::iter([1]));
    let mut answers = within(answers.into_future()).await.unwrap();
    assert_eq!(within(answers.next()).await.unwrap().unwrap(), 0);
    assert!(told.try_recv().is_err());
    drop(answers);
    assert_eq!(within(told.recv()).await, Some("dropped"));
}

#[tokio::test]
async fn a_stream_of_answers_ends_with_the_callers_time() {
    let (router, mut told) = endless();
    let app = router.into_axum();
    let mut client = PluginClient::with_origin(app, "http://plugin".parse().unwrap());
    let first = ExecuteRequest {
        method: "endless".to_owned(),
        payload: "1".into(),
        ..ExecuteRequest::default()
    };
    let mut request = tonic::Request::new(stream::iter([first]));
    request.set_timeout(std::time::Duration::from_millis(200));
    let mut answers = within(client.execute_stream(request))
        .await
        .unwrap()
        .into_inner();
    let read = async {
        loop {
            if let Err(end) = answers.message().await {
                return end;
            }
        }
    };
    let end = within(read).await;
    assert_eq!(end.code(), tonic::Code::DeadlineExceeded);
    assert_eq!(within(told.recv()).await, Some("dropped"));
}

#[tokio::test]
async fn a_failure_over_grpc_has_its_code_and_when_to_ask_again_in_the_metadata() {
    let later = std::time::Duration::from_millis(1500);
    let busy = CallError::new(Kind::Unavailable, "not now")
        .code("busy")
        .retry_after(later);
    let busy = move || std::future::ready(Err::<(), _>(busy.clone()));
    let app = Router::new().method("busy", busy).into_axum();
    let mut client = PluginClient::with_origin(app, "http://plugin".parse().unwrap());
    let request = ExecuteRequest {
        method: "busy".to_owned(),
        ..ExecuteRequest::default()
    };
    let status = client.execute(request).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::Unavailable, "not now")
    );
    assert_eq!(status.metadata().get("x-error-code").unwrap(), "busy");
    assert_eq!(
        status.metadata().get("grpc-retry-pushback-ms").unwrap(),
        "1500"
    );
}
