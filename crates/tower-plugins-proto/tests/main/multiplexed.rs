//! Two ends of one socket that carries all connections, and two brokers that hear each other.

use std::future::pending;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tonic::codegen::tokio_stream::StreamExt;
use tower_plugins_proto::go_plugin::broker::{
    Broker, BrokerError, Connection, Driver, Incoming, Message, Multiplexed, TIMEOUT,
};

/// What a test waits for an event at most.
const BOUND: Duration = Duration::from_secs(30);

pub(crate) async fn within<F: Future>(what: F) -> F::Output {
    timeout(BOUND, what).await.unwrap()
}

/// What `from` says, `to` hears.
pub(crate) fn hears(to: &Broker, from: &Broker) {
    let (to, mut said) = (to.clone(), from.outgoing().unwrap());
    tokio::spawn(async move {
        while let Some(info) = said.next().await {
            to.received(info);
        }
    });
}

struct Ends {
    host: Multiplexed,
    plugin: Multiplexed,
    main: Incoming,
    /// The host's and the plugin's.
    brokers: [Broker; 2],
    drivers: [JoinHandle<std::io::Result<()>>; 2],
}

fn sockets() -> (DuplexStream, DuplexStream) {
    duplex(64 << 10)
}

fn ends() -> Ends {
    let (near, far) = sockets();
    let brokers = [Broker::new(), Broker::new()];
    hears(&brokers[0], &brokers[1]);
    hears(&brokers[1], &brokers[0]);
    let (host, near) = Multiplexed::host(near, &brokers[0]);
    let (plugin, main, far) = Multiplexed::plugin(far, &brokers[1]);
    Ends {
        host,
        plugin,
        main,
        brokers,
        drivers: [near, far].map(|driver: Driver| tokio::spawn(driver)),
    }
}

/// Says `id` to each that connects.
fn serve(mut incoming: Incoming, id: u32) {
    tokio::spawn(async move {
        while let Some(mut connection) = incoming.next().await {
            // Who went away hears nothing.
            drop(connection.write_u32(id).await);
        }
    });
}

async fn heard(mut connection: Connection) -> std::io::Result<u32> {
    connection.read_u32().await
}

#[tokio::test]
async fn each_dial_of_either_side_reaches_who_accepts_it() {
    let ends = ends();
    for id in 1..=20 {
        serve(ends.host.accept(id).unwrap(), id);
        serve(ends.plugin.accept(id).unwrap(), 1_000 + id);
    }
    let mut dials = JoinSet::new();
    for _ in 0..3 {
        for id in 1..=20 {
            for (dialer, expected) in [(&ends.host, 1_000 + id), (&ends.plugin, id)] {
                let dialer = dialer.clone();
                dials.spawn(async move {
                    let connection = dialer.dial(id).await.unwrap();
                    assert_eq!(heard(connection).await.unwrap(), expected);
                });
            }
        }
    }
    within(dials.join_all()).await;
}

#[tokio::test]
async fn what_nobody_knocks_for_is_a_main_connection_and_only_the_plugin_takes_one() {
    let mut ends = ends();
    let mut first = within(ends.host.open()).await.unwrap();
    first.write_all(b"hello").await.unwrap();
    first.shutdown().await.unwrap();
    let mut taken = within(ends.main.next()).await.unwrap();
    let mut text = String::new();
    within(taken.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "hello");

    // The host has none to take one.
    let refused = within(ends.plugin.open()).await.unwrap();
    within(heard(refused)).await.unwrap_err();
}

/// Of go-plugin's, who opens a stream closes the socket if it is not acknowledged. Nobody reads or writes here.
#[tokio::test]
async fn a_stream_is_acknowledged_before_a_byte_is_sent_on_it() {
    let mut ends = ends();
    let opened = within(ends.host.open()).await.unwrap();
    let accepted = within(ends.main.next()).await.unwrap();
    drop((opened, accepted));
}

#[tokio::test(start_paused = true)]
async fn a_knock_that_nobody_answers_is_over_after_five_seconds() {
    let ends = ends();
    let began = Instant::now();
    let error = ends.host.dial(7).await.unwrap_err();
    assert_eq!(
        (error, began.elapsed()),
        (BrokerError::TimedOut(7), TIMEOUT)
    );
    serve(ends.plugin.accept(8).unwrap(), 8);
    assert_eq!(heard(ends.host.dial(8).await.unwrap()).await.unwrap(), 8);
}

#[tokio::test(start_paused = true)]
async fn who_accepts_a_little_late_is_still_reached() {
    let ends = ends();
    let accept = async {
        tokio::time::sleep(TIMEOUT / 2).await;
        serve(ends.plugin.accept(7).unwrap(), 7);
    };
    let (connection, ()) = tokio::join!(ends.host.dial(7), accept);
    assert_eq!(heard(connection.unwrap()).await.unwrap(), 7);
}

#[tokio::test]
async fn a_dial_that_is_given_up_leaves_the_next_ones_right() {
    let ends = ends();
    for id in 1..=3 {
        serve(ends.plugin.accept(id).unwrap(), id);
    }
    for round in 0..50 {
        let given_up = ends.host.dial(1);
        // As far as it comes in some turns of the runtime.
        let turns = async {
            for _ in 0..round % 10 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = given_up => {}
            () = turns => {}
        }
        for id in [2, 3] {
            let connection = within(ends.host.dial(id)).await.unwrap();
            assert_eq!(within(heard(connection)).await.unwrap(), id);
        }
    }
}

#[tokio::test]
async fn a_refusal_says_why() {
    let (near, far) = sockets();
    let broker = Broker::new();
    let mut said = broker.outgoing().unwrap();
    let (host, driver) = Multiplexed::host(near, &broker);
    tokio::spawn(driver);
    let refuse = async {
        let knock = Message::try_from(said.next().await.unwrap()).unwrap();
        assert_eq!(knock, Message::Knock { id: 7 });
        let refused = Some("no listener".to_owned());
        broker.received(Message::Answer { id: 7, refused }.into());
    };
    let (dialed, ()) = within(async { tokio::join!(host.dial(7), refuse) }).await;
    let why = "no listener".to_owned();
    assert_eq!(dialed.unwrap_err(), BrokerError::Refused { id: 7, why });
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_accepted_once_at_a_time_until_who_accepts_it_is_dropped() {
    let ends = ends();
    let accepted = ends.plugin.accept(7).unwrap();
    let twice = ends.plugin.accept(7).unwrap_err();
    assert_eq!(twice, BrokerError::Twice(7));
    drop(accepted);
    let error = ends.host.dial(7).await.unwrap_err();
    assert_eq!(error, BrokerError::TimedOut(7));
    serve(ends.plugin.accept(7).unwrap(), 7);
    assert_eq!(heard(ends.host.dial(7).await.unwrap()).await.unwrap(), 7);
}

#[tokio::test]
async fn bytes_go_both_ways_at_once_and_many() {
    let mut ends = ends();
    let opened = within(ends.host.open()).await.unwrap();
    let accepted = within(ends.main.next()).await.unwrap();
    let bytes: Vec<u8> = (0..4_000_000_u32)
        .map(|at| at.to_le_bytes()[at as usize % 3])
        .collect();
    let exchange = async |connection: Connection| {
        let (mut reader, mut writer) = tokio::io::split(connection);
        let write = async {
            writer.write_all(&bytes).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let (ended, ()) = tokio::join!(reader.read_to_end(&mut read), write);
        ended.unwrap();
        assert!(read == bytes);
    };
    within(async { tokio::join!(exchange(opened), exchange(accepted)) }).await;
}

#[tokio::test]
async fn all_ends_with_the_last_handle_of_either_side() {
    let Ends {
        host,
        plugin,
        mut main,
        drivers: [near, far],
        ..
    } = ends();
    let open = within(host.open()).await.unwrap();
    let mut accepted = plugin.accept(7).unwrap();
    within(main.next()).await.unwrap();
    drop(host);
    within(near).await.unwrap().unwrap();
    within(heard(open)).await.unwrap_err();
    // The other side hears of it.
    assert!(within(main.next()).await.is_none());
    within(far).await.unwrap().unwrap();
    assert_eq!(plugin.dial(1).await.unwrap_err(), BrokerError::Closed);
    assert_eq!(plugin.open().await.unwrap_err(), BrokerError::Closed);
    assert!(within(accepted.next()).await.is_none());
    assert_eq!(plugin.accept(8).unwrap_err(), BrokerError::Closed);
}

#[tokio::test]
async fn closing_the_broker_ends_who_accepts_and_who_dials() {
    let ends = ends();
    let mut accepted = ends.plugin.accept(7).unwrap();
    ends.brokers[1].close();
    assert!(within(accepted.next()).await.is_none());
    assert_eq!(ends.plugin.accept(8).unwrap_err(), BrokerError::Closed);
    assert_eq!(
        within(ends.plugin.dial(8)).await.unwrap_err(),
        BrokerError::Closed
    );
    // The socket goes on: the call that ends the plugin is still to come.
    within(ends.host.open()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_stream_is_told_of() {
    let (near, _far) = sockets();
    let (host, driver) = Multiplexed::host(near, &Broker::new());
    tokio::spawn(driver);
    assert_eq!(host.open().await.unwrap_err(), BrokerError::Opens);
}

#[tokio::test]
async fn a_driver_that_is_dropped_ends_what_waits() {
    let (near, _far) = sockets();
    let (host, driver) = Multiplexed::host(near, &Broker::new());
    let driver = tokio::spawn(driver);
    let open = tokio::spawn({
        let host = host.clone();
        async move { host.open().await.map(drop) }
    });
    tokio::task::yield_now().await;
    driver.abort();
    assert_eq!(within(open).await.unwrap(), Err(BrokerError::Closed));
    tokio::select! {
        biased;
        dialed = host.dial(1) => assert_eq!(dialed.unwrap_err(), BrokerError::Closed),
        () = pending() => {}
    }
}
