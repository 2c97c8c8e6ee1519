//! Against a real redis-server, on a socket in a directory of the test's own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;
use tower_plugins::Reason;
use tower_plugins::config::Config;

use super::stage::Stage;
use crate::support::{config, within};

/// Set where a missing peer is a failure, as in CI.
const REQUIRED: &str = "TOWER_PLUGINS_REQUIRE_PEERS";

struct Server {
    process: Child,
    dir: tempfile::TempDir,
}

impl Server {
    /// None, said loudly, where there is no such program.
    async fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(dir.path().join("redis.sock"))
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn();
        match process {
            Ok(process) => {
                let server = Self { process, dir };
                within(async {
                    while UnixStream::connect(server.socket()).is_err() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                })
                .await;
                Some(server)
            }
            Err(error) => {
                let message = format!("no redis-server could be started: {error}");
                assert!(
                    std::env::var_os(REQUIRED).is_none_or(|set| set != "1"),
                    "{message}"
                );
                eprintln!("SKIPPED: {message}, so that rate_limit.redis is not tested");
                None
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// A block that says where it is, and more.
    fn block(&self, more: &str) -> String {
        let socket = self.socket();
        format!(
            "redis: {{ url: 'unix:{}', timeout: 10s, {more} }}",
            socket.display()
        )
    }

    /// What the server says to a command.
    fn ask(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream
            .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
            .unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }

    /// The names of the buckets.
    fn keys(&self) -> String {
        self.ask("KEYS *")
    }

    /// How many connections there were, without those of this test.
    fn connections(&self, asked: usize) -> usize {
        let stats = self.ask("INFO stats");
        let count = stats.split("total_connections_received:").nth(1).unwrap();
        count.lines().next().unwrap().parse::<usize>().unwrap() - asked
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn limited(keys: &str) -> Config {
    config(&format!(
        "plugins: {{ p: {{ transport: in-process, endpoint: one, rate_limit: {{ {keys} }} }} }}"
    ))
}

/// A token in an hour and a half.
const SLOW: &str = "requests_per_second: 0.0002";

#[tokio::test]
async fn url_is_where_the_buckets_of_a_fleet_are() {
    let Some(server) = Server::start().await else {
        return;
    };
    let keys = format!("{SLOW}, burst_size: 5, {}", server.block(""));
    // Two programs.
    let (one, other) = (
        Stage::start_with(limited(&keys)).await,
        Stage::start_with(limited(&keys)).await,
    );
    assert_eq!(one.asked(3).await, 3);
    assert_eq!(other.asked(10).await, 2);
    assert_eq!(one.refusal().await, Some(Reason::RateLimited));
    assert!(server.keys().contains("rate_limit:p:"), "{}", server.keys());
}

#[tokio::test]
async fn prefix_is_what_plugins_share_buckets_by() {
    let Some(server) = Server::start().await else {
        return;
    };
    for (prefix, together) in [("", 4), ("prefix: 'mine:'", 2)] {
        let limit = format!("{SLOW}, burst_size: 2, {}", server.block(prefix));
        let stage = Stage::start(&format!(
            "default_rate_limit: {{ {limit} }}
plugins: {{ p: {{ transport: in-process, endpoint: one }}, q: {{ transport: in-process, endpoint: one }} }}"
        ))
        .await;
        assert_eq!(
            stage.asked(5).await + stage.asked_by("q", 5).await,
            together,
            "{prefix}"
        );
    }
    assert!(server.keys().contains("mine:"));
}

#[tokio::test]
async fn timeout_is_how_long_a_call_waits_for_the_server() {
    // It takes connections and says nothing.
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("redis.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let keys = format!(
        "{SLOW}, redis: {{ url: 'unix:{}', timeout: 300ms, fail_open: false }}",
        socket.display()
    );
    let stage = Stage::start_with(limited(&keys)).await;
    let begun = Instant::now();
    assert_eq!(stage.refusal().await, Some(Reason::FilterFailed));
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn fail_open_is_whether_calls_go_on_without_the_server() {
    for (keys, refused) in [("", None), ("fail_open: false", Some(Reason::FilterFailed))] {
        // A server that is not there fails no start.
        let keys =
            format!("{SLOW}, redis: {{ url: 'unix:/nowhere/redis.sock', timeout: 50ms, {keys} }}");
        let stage = Stage::start_with(limited(&keys)).await;
        for _ in 0..3 {
            let end = stage.call().await.err().and_then(|error| error.reason());
            assert_eq!(end, refused);
        }
    }
}

#[tokio::test]
async fn a_reload_keeps_the_connection_while_its_block_is_equal() {
    let Some(server) = Server::start().await else {
        return;
    };
    let with = |burst: u32, more: &str| {
        limited(&format!(
            "{SLOW}, burst_size: {burst}, headers: true, {}",
            server.block(more)
        ))
    };
    let stage = Stage::start_with(with(3, "")).await;
    assert_eq!(stage.asked(10).await, 3);
    // One was to see whether it listens, and one asks now.
    assert_eq!(server.connections(2), 1);
    stage.plugins.reload(with(2, "")).await.unwrap();
    assert_eq!(stage.asked(10).await, 0, "a reload is no free burst");
    assert_eq!(server.connections(3), 1);
    stage
        .plugins
        .reload(with(2, "prefix: 'other:'"))
        .await
        .unwrap();
    assert_eq!(stage.asked(10).await, 2);
    assert_eq!(server.connections(4), 2);
}

#[tokio::test]
async fn each_key_has_a_bucket_of_the_fleet_and_a_call_its_cost() {
    let Some(server) = Server::start().await else {
        return;
    };
    let keys = format!(
        "{SLOW}, burst_size: 5, key_header: x-tenant, cost_header: x-cost, {}",
        server.block("")
    );
    let stage = Stage::start_with(limited(&keys)).await;
    let call = async |tenant: &str, cost: &str| {
        let request = http::Request::get("/")
            .header("x-tenant", tenant)
            .header("x-cost", cost);
        let call = stage.send("p", request.body(tower_plugins::Body::default()).unwrap());
        call.await.err().and_then(|error| error.reason())
    };
    assert_eq!(call("ann", "4").await, None);
    assert_eq!(call("ann", "2").await, Some(Reason::RateLimited));
    assert_eq!(call("bob", "5").await, None);
    assert!(server.keys().contains("rate_limit:p:ann"));
}
