//! Two links, with either mode between them, and with TLS or without.

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tower_plugins_proto::go_plugin::broker::{
    Accepted, Broker, BrokerError, Io, Link, LinkError, Multiplexed,
};
use tower_plugins_proto::go_plugin::socket::Listen;
use tower_plugins_proto::go_plugin::tls::{Identity, Tls};

use crate::multiplexed::{hears, within};

/// The host's and the plugin's, and where their sockets are.
struct Links {
    host: Link,
    plugin: Link,
    directory: TempDir,
}

impl Links {
    fn new(multiplex: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let brokers = [Broker::new(), Broker::new()];
        hears(&brokers[0], &brokers[1]);
        hears(&brokers[1], &brokers[0]);
        let [host, plugin] = if multiplex {
            let (near, far) = duplex(1 << 16);
            let (host, driver) = Multiplexed::host(near, &brokers[0]);
            tokio::spawn(driver);
            let (plugin, _, driver) = Multiplexed::plugin(far, &brokers[1]);
            tokio::spawn(driver);
            [host, plugin].map(Link::multiplexed)
        } else {
            let listen = Listen::unix().directory(directory.path());
            brokers.map(|broker| Link::new(broker, listen.clone()))
        };
        Self {
            host,
            plugin,
            directory,
        }
    }

    fn certified(multiplex: bool) -> Self {
        let [host, plugin] = [(); 2].map(|()| Identity::generate().unwrap());
        let links = Self::new(multiplex);
        Self {
            host: links
                .host
                .tls(Tls::pinned(&host, plugin.certificate()).unwrap()),
            plugin: links
                .plugin
                .tls(Tls::pinned(&plugin, host.certificate()).unwrap()),
            directory: links.directory,
        }
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.directory.path()).unwrap().count()
    }

    /// The one socket that is there.
    async fn raw(&self) -> UnixStream {
        let mut found = std::fs::read_dir(self.directory.path()).unwrap();
        let path = found.next().unwrap().unwrap().path();
        UnixStream::connect(path).await.unwrap()
    }
}

/// Says its id to each that connects.
fn serve(mut accepted: Accepted) {
    tokio::spawn(async move {
        while let Some(mut io) = accepted.next().await {
            let id = accepted.id();
            // Who went away hears nothing.
            tokio::spawn(async move {
                drop(io.write_u32(id).await);
                drop(io.shutdown().await);
            });
        }
    });
}

async fn heard(mut io: Io) -> u32 {
    within(io.read_u32()).await.unwrap()
}

#[tokio::test]
async fn each_side_reaches_what_the_other_offers_in_both_modes_and_with_tls() {
    for links in [
        Links::new(false),
        Links::certified(false),
        Links::new(true),
        Links::certified(true),
    ] {
        let mut calls = JoinSet::new();
        for _ in 0..8 {
            for (offers, connects) in [(&links.host, &links.plugin), (&links.plugin, &links.host)] {
                let accepted = offers.accept().await.unwrap();
                let (id, connects) = (accepted.id(), connects.clone());
                serve(accepted);
                calls.spawn(async move {
                    let io = within(connects.connect(id)).await.unwrap();
                    assert_eq!(heard(io).await, id);
                });
            }
        }
        within(calls.join_all()).await;
    }
}

#[tokio::test]
async fn who_is_dropped_accepts_no_more_and_leaves_no_socket() {
    for multiplex in [false, true] {
        let links = Links::new(multiplex);
        let first = links.host.accept_as(7).await.unwrap();
        assert_eq!(links.files(), usize::from(!multiplex));
        let twice = links.host.accept_as(7).await.unwrap_err();
        let twice = matches!(twice, LinkError::Broker(BrokerError::Twice(7)));
        assert!(twice);
        drop(first);
        assert_eq!(links.files(), 0);
        drop(links.host.accept_as(7).await.unwrap());
    }
}

#[tokio::test]
async fn an_id_that_is_chosen_is_not_one_that_was_given() {
    let links = Links::new(false);
    let given = links.host.accept_as(1).await.unwrap();
    let chosen = links.host.accept().await.unwrap();
    assert_eq!((given.id(), chosen.id()), (1, 2));
}

#[tokio::test]
async fn closing_the_broker_ends_who_accepts() {
    for multiplex in [false, true] {
        let links = Links::certified(multiplex);
        let mut accepted = links.host.accept().await.unwrap();
        links.host.broker().close();
        assert!(within(accepted.next()).await.is_none());
        assert!(links.host.accept().await.is_err());
    }
}

#[tokio::test]
async fn who_says_nothing_or_goes_away_at_once_holds_up_no_other() {
    let links = Links::certified(false);
    let accepted = links.host.accept().await.unwrap();
    let id = accepted.id();
    serve(accepted);
    let silent = links.raw().await;
    for _ in 0..10 {
        drop(links.raw().await);
    }
    let io = within(links.plugin.connect(id)).await.unwrap();
    assert_eq!(heard(io).await, id);
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_gone_after_ten_seconds() {
    let links = Links::certified(false);
    let mut accepted = links.host.accept().await.unwrap();
    let mut silent = links.raw().await;
    let ended = tokio::select! {
        _ = accepted.next() => unreachable!("nobody agreed on TLS"),
        ended = silent.read_u8() => ended,
    };
    assert!(ended.is_err());
}

#[tokio::test]
async fn who_has_another_certificate_is_refused_by_either_end() {
    for multiplex in [false, true] {
        let links = Links::certified(multiplex);
        let [stranger, other] = [(); 2].map(|()| Identity::generate().unwrap());
        let strange = Tls::pinned(&stranger, other.certificate()).unwrap();
        let strange = links.plugin.clone().tls(strange);
        let mut offered = links.host.accept().await.unwrap();
        let id = offered.id();
        let refused = tokio::select! {
            _ = offered.next() => unreachable!("a stranger was let in"),
            refused = within(strange.connect(id)) => refused.unwrap_err(),
        };
        assert!(matches!(refused, LinkError::Tls { .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_side_without_a_servers_config_offers_nothing() {
    let links = Links::new(false);
    let own = Identity::generate().unwrap();
    let config = own.client_config(own.certificate()).unwrap();
    let link = links.host.tls(Tls::default().client(config));
    let error = link.accept().await.unwrap_err();
    assert!(matches!(error, LinkError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn an_offer_whose_socket_is_gone_is_said_to_be() {
    let links = Links::new(false);
    let offered = links.host.accept().await.unwrap();
    let id = offered.id();
    drop(offered);
    let error = links.plugin.connect(id).await.unwrap_err();
    assert!(matches!(error, LinkError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn one_offer_may_be_dialed_again_and_again() {
    for multiplex in [false, true] {
        let links = Links::new(multiplex);
        let offered = links.host.accept().await.unwrap();
        let dialer = links.plugin.dialer(offered.id());
        serve(offered);
        for _ in 0..3 {
            let io = within(dialer.connect()).await.unwrap();
            assert_eq!(heard(io).await, dialer.id());
        }
    }
}
