//! The four shapes of calls, by a generated client.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Streaming};
use tower_plugins::Plugin;

use super::server::calculator::calculator_client::CalculatorClient;
use super::server::calculator::{DivideRequest, Number};
use super::server::{Server, WAYS, Way, client, number};
use crate::support::within;

const ONE_BY_ZERO: DivideRequest = DivideRequest {
    dividend: 1.0,
    divisor: 0.0,
};

/// A stream of sums, by what it is sent.
async fn running_sum(
    client: &mut CalculatorClient<Plugin>,
) -> (mpsc::UnboundedSender<Number>, Streaming<Number>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let sums = client.running_sum(UnboundedReceiverStream::new(receiver));
    (sender, within(sums).await.unwrap().into_inner())
}

async fn next(answers: &mut Streaming<Number>) -> f64 {
    within(answers.message()).await.unwrap().unwrap().value
}

async fn unary_goes_through(way: Way) {
    let server = Server::start(way).await;
    let mut client = client(server.plugin("").await);
    let (dividend, divisor) = (1.0, 8.0);
    let asked = DivideRequest { dividend, divisor };
    let quotient = within(client.divide(asked)).await.unwrap();
    assert_eq!(quotient.into_inner(), number(0.125));
    let (metadata, _) = server.desk.seen().pop().unwrap();
    assert_eq!(metadata.get("te").unwrap(), "trailers");
}

async fn client_streaming_goes_through(way: Way) {
    let server = Server::start(way).await;
    let mut client = client(server.plugin("").await);
    let numbers = stream::iter((1..=100).map(f64::from).map(number));
    let sum = within(client.sum(numbers)).await.unwrap();
    assert_eq!(sum.into_inner(), number(5050.0));
}

async fn server_streaming_goes_through(way: Way) {
    let server = Server::start(way).await;
    let mut client = client(server.plugin("").await);
    let numbers = within(client.count(number(1_000.0))).await.unwrap();
    let numbers = within(numbers.into_inner().collect::<Vec<_>>()).await;
    let numbers: Vec<_> = numbers
        .into_iter()
        .map(|number| number.unwrap().value)
        .collect();
    assert_eq!(numbers, (1..=1_000).map(f64::from).collect::<Vec<_>>());
}

async fn both_streams_go_through_at_once(way: Way) {
    let mut server = Server::start(way).await;
    let plugins = server.plugins("").await;
    let (sender, mut sums) = running_sum(&mut client(plugins.plugin("p"))).await;
    for (sent, sum) in [(1.0, 1.0), (2.0, 3.0), (4.0, 7.0)] {
        sender.send(number(sent)).unwrap();
        assert_eq!(next(&mut sums).await, sum, "each before the next is sent");
    }
    drop(sender);
    assert_eq!(within(sums.message()).await.unwrap(), None);
    server.ended().await;
    assert_eq!(plugins.active_requests("p"), 0);
}

#[tokio::test]
async fn a_unary_call_goes_through_over_tcp() {
    unary_goes_through(Way::Tcp).await;
}

#[tokio::test]
async fn a_unary_call_goes_through_over_a_unix_socket() {
    unary_goes_through(Way::Unix).await;
}

#[tokio::test]
async fn a_unary_call_goes_through_over_tls() {
    unary_goes_through(Way::Tls).await;
}

#[tokio::test]
async fn a_stream_of_requests_goes_through_over_tcp() {
    client_streaming_goes_through(Way::Tcp).await;
}

#[tokio::test]
async fn a_stream_of_requests_goes_through_over_a_unix_socket() {
    client_streaming_goes_through(Way::Unix).await;
}

#[tokio::test]
async fn a_stream_of_requests_goes_through_over_tls() {
    client_streaming_goes_through(Way::Tls).await;
}

#[tokio::test]
async fn a_stream_of_answers_goes_through_over_tcp() {
    server_streaming_goes_through(Way::Tcp).await;
}

#[tokio::test]
async fn a_stream_of_answers_goes_through_over_a_unix_socket() {
    server_streaming_goes_through(Way::Unix).await;
}

#[tokio::test]
async fn a_stream_of_answers_goes_through_over_tls() {
    server_streaming_goes_through(Way::Tls).await;
}

#[tokio::test]
async fn streams_both_ways_go_through_at_once_over_tcp() {
    both_streams_go_through_at_once(Way::Tcp).await;
}

#[tokio::test]
async fn streams_both_ways_go_through_at_once_over_a_unix_socket() {
    both_streams_go_through_at_once(Way::Unix).await;
}

#[tokio::test]
async fn streams_both_ways_go_through_at_once_over_tls() {
    both_streams_go_through_at_once(Way::Tls).await;
}

#[tokio::test]
async fn a_status_arrives_whole_at_once_or_after_answers() {
    for way in WAYS {
        let server = Server::start(way).await;
        let mut client = client(server.plugin("").await);
        let status = within(client.divide(ONE_BY_ZERO)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "cannot divide by 0 %");
        assert_eq!(status.metadata().get("x-why").unwrap(), "because");

        let (sender, mut sums) = running_sum(&mut client).await;
        sender.send(number(1.0)).unwrap();
        assert_eq!(next(&mut sums).await, 1.0);
        sender.send(number(-1.0)).unwrap();
        let status = within(sums.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{way:?}: {status:?}");
    }
}

#[tokio::test]
async fn a_callers_deadline_is_passed_on_and_kept() {
    for way in WAYS {
        let mut server = Server::start(way).await;
        let plugins = server.plugins("").await;
        let mut client = client(plugins.plugin("p"));
        let (_sender, receiver) = mpsc::unbounded_channel();
        let mut request = Request::new(UnboundedReceiverStream::new(receiver));
        request.set_timeout(Duration::from_millis(200));
        let mut sums = within(client.running_sum(request))
            .await
            .unwrap()
            .into_inner();
        let status = within(sums.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{way:?}: {status:?}");
        server.ended().await;
        assert_eq!(plugins.active_requests("p"), 0);
        let (metadata, _) = server.desk.seen().pop().unwrap();
        let told = metadata.get("grpc-timeout").unwrap().to_str().unwrap();
        assert_ne!(told, "200m", "some of it is over");
    }
}

#[tokio::test]
async fn a_dropped_stream_is_reset_at_the_server() {
    for way in WAYS {
        let mut server = Server::start(way).await;
        let plugins = server.plugins("").await;
        let mut client = client(plugins.plugin("p"));
        let (sender, sums) = running_sum(&mut client).await;
        sender.send(number(1.0)).unwrap();
        drop(sums);
        server.ended().await;
        within(sender.closed()).await;
        // The head of another one never comes.
        let endless = within(client.count(number(1e15))).await.unwrap();
        drop(endless);
        server.ended().await;
        assert_eq!(plugins.active_requests("p"), 0, "{way:?}");
        assert_eq!(
            within(client.count(number(0.0)))
                .await
                .unwrap()
                .into_inner()
                .message()
                .await
                .unwrap(),
            None,
            "the connection is whole"
        );
    }
}

#[tokio::test]
async fn what_is_refused_here_has_its_own_code() {
    let server = Server::start(Way::Tcp).await;
    let by_two = DivideRequest {
        dividend: 1.0,
        divisor: 2.0,
    };
    for (keys, code) in [
        (
            "rate_limit: { requests_per_second: 0.001, burst_size: 1 }",
            Code::ResourceExhausted,
        ),
        (
            "circuit_breaker: { failure_threshold: 1 }, retry: off",
            Code::Unavailable,
        ),
    ] {
        let mut client = client(server.plugin(keys).await);
        server.desk.fail(tonic::Status::internal("broken"));
        let first = within(client.divide(by_two)).await.unwrap_err();
        assert_eq!(first.code(), Code::Internal);
        let refused = within(client.divide(by_two)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    drop(server);
    let nobody = Server::start(Way::Tcp).await;
    let plugin = nobody.plugin("retry: off").await;
    drop(nobody);
    let unreachable = within(client(plugin).divide(by_two)).await.unwrap_err();
    assert_eq!(unreachable.code(), Code::Unavailable);
}
