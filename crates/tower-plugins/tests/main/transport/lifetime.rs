//! What lives as long as the endpoint, and no longer.

use http_body_util::BodyExt;
use tokio::runtime::Builder;
use tower_plugins::config::{Address, Protocol};
use tower_plugins::transport::Transport;

use super::server::{EVERY, Server, Socket, channel, data, echo, post, read, within};

/// The sockets of this process that are connected to `address`.
#[cfg(target_os = "linux")]
fn sockets_to(address: &Address) -> Option<usize> {
    let Address::Http { authority, .. } = address else {
        return None;
    };
    let remote = format!("0100007F:{:04X}", authority.port_u16()?);
    let table = std::fs::read_to_string("/proc/self/net/tcp").ok()?;
    let rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    // A socket without a descriptor has the inode 0.
    Some(
        rows.filter(|row| row[2] == remote && row.get(9).is_some_and(|inode| *inode != "0"))
            .count(),
    )
}

#[test]
fn nothing_is_left_when_the_last_holder_goes() {
    let servers = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for (socket, protocol) in EVERY {
        let server = servers.block_on(Server::start(socket, protocol, echo));
        let clients = Builder::new_current_thread().enable_all().build().unwrap();
        clients.block_on(async {
            let http = server.http();
            // One call that ended, one under way with its request still being sent, one cancelled.
            read(within(http.call(post("/", "ended"))).await.unwrap()).await;
            let (_sender, body) = channel();
            let cancelled = http.call(post("/", body));
            let (sender, body) = channel();
            sender.send(data("first")).unwrap();
            let mut under_way = within(http.call(post("/", body)))
                .await
                .unwrap()
                .into_body();
            assert!(within(under_way.frame()).await.unwrap().is_ok());
            drop(cancelled);

            // The body keeps its connection when the endpoint is gone.
            drop(http);
            sender.send(data("second")).unwrap();
            let second = within(under_way.frame()).await.unwrap().unwrap();
            assert_eq!(
                second.into_data().unwrap(),
                "second",
                "{socket:?} {protocol:?}"
            );

            drop(under_way);
            within(sender.closed()).await;
            server.until_open(0).await;
            let metrics = tokio::runtime::Handle::current().metrics();
            within(async {
                while metrics.num_alive_tasks() > 0 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            #[cfg(target_os = "linux")]
            if socket == Socket::Tcp {
                assert_eq!(sockets_to(&server.address), Some(0));
            }
        });
    }
}

#[test]
fn an_endpoint_outlives_the_runtime_it_was_first_used_on() {
    let servers = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = servers.block_on(Server::start(Socket::Tcp, protocol, echo));
        let http = server.http();
        for _ in 0..3 {
            let clients = Builder::new_current_thread().enable_all().build().unwrap();
            clients.block_on(async {
                let response = within(http.call(post("/", "hello"))).await.unwrap();
                assert_eq!(read(response).await, "hello");
            });
        }
    }
}
