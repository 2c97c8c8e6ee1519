//! Two brokers, between them the stream that generated code makes, without a socket.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::codegen::tokio_stream::StreamExt;
use tonic::{Code, Status};
use tower_plugins_proto::go_plugin::Address;
use tower_plugins_proto::go_plugin::broker::{Broker, BrokerError, MAX_PENDING, TIMEOUT};
use tower_plugins_proto::go_plugin::grpc::grpc_broker_client::GrpcBrokerClient;
use tower_plugins_proto::go_plugin::grpc::grpc_broker_server::GrpcBrokerServer;
use tower_plugins_proto::go_plugin::grpc::{ConnInfo, conn_info::Knock};

/// What a test waits for an event at most.
const BOUND: Duration = Duration::from_secs(30);

type Stream = JoinHandle<Result<(), Status>>;

fn join(host: &Broker, plugin: &Broker) -> Stream {
    let client = GrpcBrokerClient::new(GrpcBrokerServer::new(plugin.clone()));
    let host = host.clone();
    tokio::spawn(async move { host.run(client).await })
}

fn joined() -> (Broker, Broker, Stream) {
    let (host, plugin) = (Broker::new(), Broker::new());
    let stream = join(&host, &plugin);
    (host, plugin, stream)
}

fn at(port: u16) -> Address {
    Address::Tcp(([127, 0, 0, 1], port).into())
}

#[tokio::test]
async fn either_side_finds_what_the_other_offers_under_the_same_id() {
    let (host, plugin, _stream) = joined();
    assert_eq!((host.next_id(), plugin.next_id()), (1, 1));
    assert_eq!((host.next_id(), plugin.next_id()), (2, 2));
    // One waits for its offer, and one is offered before it is asked for.
    let (found, offered) = tokio::join!(plugin.find(1), host.offer(1, at(10)));
    assert_eq!((found, offered), (Ok(at(10)), Ok(())));
    plugin.offer(1, at(20)).await.unwrap();
    assert_eq!(host.find(1).await, Ok(at(20)));
}

#[tokio::test]
async fn what_is_offered_before_there_is_a_stream_is_told_then() {
    let (host, plugin) = (Broker::new(), Broker::new());
    plugin.offer(9, at(10)).await.unwrap();
    let _stream = join(&host, &plugin);
    assert_eq!(host.find(9).await, Ok(at(10)));
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_does_not_come_is_waited_for_five_seconds() {
    let (host, _plugin, _stream) = joined();
    let began = Instant::now();
    assert_eq!(host.find(7).await, Err(BrokerError::TimedOut(7)));
    assert_eq!(began.elapsed(), TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_nobody_takes_is_kept_for_five_seconds() {
    let broker = Broker::new();
    let offer = |port| broker.received(info(7, port));
    offer(10);
    tokio::time::advance(TIMEOUT - Duration::from_millis(1)).await;
    assert_eq!(broker.find(7).await, Ok(at(10)));
    offer(20);
    tokio::time::advance(TIMEOUT).await;
    assert_eq!(broker.find(7).await, Err(BrokerError::TimedOut(7)));
}

#[tokio::test(start_paused = true)]
async fn each_connection_is_for_one_taker_and_may_be_wanted_again() {
    let broker = Broker::new();
    let (first, second) = tokio::join!(broker.find(7), broker.find(7));
    assert_eq!(first, Err(BrokerError::TimedOut(7)));
    assert_eq!(second, Err(BrokerError::Twice(7)));
    // A taker that goes away leaves nothing.
    assert!(
        timeout(Duration::from_secs(1), broker.find(7))
            .await
            .is_err()
    );
    broker.received(info(7, 10));
    assert_eq!(broker.find(7).await, Ok(at(10)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_cannot_offer_more_than_the_bound() {
    let broker = Broker::new();
    let most = u32::try_from(MAX_PENDING).unwrap();
    for id in 1..=2 * most {
        broker.received(info(id, 10));
    }
    assert_eq!(broker.find(most + 1).await, Err(BrokerError::Full));
    assert_eq!(broker.find(most).await, Ok(at(10)));
    assert_eq!(
        broker.find(most + 1).await,
        Err(BrokerError::TimedOut(most + 1))
    );
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_skipped() {
    let broker = Broker::new();
    let knock = Some(Knock {
        knock: true,
        ..Knock::default()
    });
    for senseless in [
        ConnInfo::default(),
        ConnInfo {
            network: "udp".into(),
            ..info(7, 10)
        },
        ConnInfo {
            knock,
            ..info(7, 10)
        },
    ] {
        broker.received(senseless);
    }
    assert_eq!(broker.find(7).await, Err(BrokerError::TimedOut(7)));
}

#[tokio::test]
async fn closing_either_side_ends_the_stream_and_who_waits() {
    for plugin_closes in [true, false] {
        let (host, plugin, stream) = joined();
        plugin.offer(1, at(10)).await.unwrap();
        host.find(1).await.unwrap();
        let waits = tokio::spawn({
            let host = host.clone();
            async move { host.find(2).await }
        });
        tokio::task::yield_now().await;
        if plugin_closes {
            plugin.close();
            assert_eq!(plugin.find(2).await, Err(BrokerError::Closed));
        }
        if !plugin_closes {
            host.close();
        }
        let ended = timeout(BOUND, stream).await.unwrap().unwrap();
        assert!(ended.is_ok(), "{ended:?}");
        host.close();
        assert_eq!(waits.await.unwrap(), Err(BrokerError::Closed));
        assert_eq!(host.offer(3, at(10)).await, Err(BrokerError::Closed));
    }
}

#[tokio::test]
async fn offers_are_not_kept_without_end_where_there_is_no_stream() {
    let broker = Broker::new();
    let offers = tokio::spawn({
        let broker = broker.clone();
        async move {
            for id in 1..=1_000 {
                broker.offer(id, at(10)).await?;
            }
            Ok(())
        }
    });
    tokio::task::yield_now().await;
    assert!(!offers.is_finished());
    broker.close();
    let offered = timeout(BOUND, offers).await.unwrap().unwrap();
    assert_eq!(offered, Err(BrokerError::Closed));
}

#[tokio::test]
async fn there_is_one_stream_at_a_time_and_another_after_it() {
    let (host, plugin, stream) = joined();
    plugin.offer(1, at(10)).await.unwrap();
    host.find(1).await.unwrap();

    let second = Broker::new();
    let refused = join(&second, &plugin).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);

    host.close();
    stream.await.unwrap().unwrap();
    drop(host);
    // The server's end notices by itself.
    let next = timeout(BOUND, async {
        while plugin.outgoing().is_err() {
            tokio::task::yield_now().await;
        }
        let third = Broker::new();
        let stream = join(&third, &plugin);
        plugin.offer(1, at(30)).await.unwrap();
        assert_eq!(third.find(1).await, Ok(at(30)));
        stream.abort();
    });
    next.await.unwrap();
}

#[tokio::test]
async fn what_this_side_says_may_go_over_a_stream_of_ones_own() {
    let broker = Broker::new();
    broker.offer(1, at(10)).await.unwrap();
    let mut outgoing = broker.outgoing().unwrap();
    assert_eq!(broker.outgoing().unwrap_err(), BrokerError::Streams);
    assert_eq!(outgoing.next().await, Some(info(1, 10)));
    broker.close();
    assert_eq!(outgoing.next().await, None);
}

#[tokio::test]
async fn an_address_that_the_other_side_could_not_read_is_not_offered() {
    let broker = Broker::new();
    let offered = broker.offer(1, Address::Unix("/tmp/a|b".into())).await;
    assert!(matches!(offered, Err(BrokerError::Address(_))));
}

fn info(id: u32, port: u16) -> ConnInfo {
    ConnInfo {
        service_id: id,
        network: "tcp".into(),
        address: format!("127.0.0.1:{port}"),
        knock: None,
    }
}
