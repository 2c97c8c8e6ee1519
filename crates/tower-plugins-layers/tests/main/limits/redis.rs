//! Against Debian's redis-server, on a socket in a directory of the test's own.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_plugins_layers::rate_limit::{KeyBy, OnError, RedisLimiter, SharedLimiter};
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{RateLimitLayer, Reason};

use crate::support::{millis, reason, request, retry_after, secs};

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
        let server = Self {
            process: Self::spawn(dir.path())?,
            dir,
        };
        server.answers().await;
        Some(server)
    }

    fn spawn(dir: &std::path::Path) -> Option<Child> {
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(dir.join("redis.sock"))
            .arg("--dir")
            .arg(dir)
            .stdout(Stdio::null())
            .spawn();
        match process {
            Ok(process) => Some(process),
            Err(error) => {
                let message = format!("no redis-server could be started: {error}");
                let required = std::env::var_os(REQUIRED).is_some_and(|set| set == "1");
                assert!(!required, "{message}");
                eprintln!("SKIPPED: {message}, so that RedisLimiter is not tested");
                None
            }
        }
    }

    fn url(&self) -> String {
        format!("unix:{}", self.dir.path().join("redis.sock").display())
    }

    async fn answers(&self) {
        let socket = self.dir.path().join("redis.sock");
        tokio::time::timeout(secs(30), async {
            while tokio::net::UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(millis(5)).await;
            }
        })
        .await
        .expect("a server that listens");
    }

    fn limiter(&self, per_second: f64, burst: u32) -> RedisLimiter {
        let limiter = RedisLimiter::new(&self.url(), per_second, burst).unwrap();
        limiter.timeout(secs(10))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_gets_no_more_than_the_rate_and_the_burst() {
    const RATE: f64 = 500.0;
    const BURST: u32 = 50;
    let Some(server) = Server::start().await else {
        return;
    };
    // Connected, so that the clock below is not that of the connecting.
    server.limiter(RATE, BURST).take(b"other", 1).await.unwrap();
    let begun = Instant::now();
    // Each has a connection of its own, as a process would.
    let members = (0..8).map(|_| {
        let limiter = server.limiter(RATE, BURST);
        tokio::spawn(async move {
            let (mut taken, mut asked) = (0_u32, 0_u32);
            while begun.elapsed() < secs(2) {
                asked += 1;
                if limiter.take(b"tenant", 1).await.unwrap().taken.is_ok() {
                    taken += 1;
                }
            }
            (taken, asked)
        })
    });
    let (mut taken, mut asked) = (0, 0);
    for member in members.collect::<Vec<_>>() {
        let (more, calls) = member.await.unwrap();
        (taken, asked) = (taken + more, asked + calls);
    }
    let time = begun.elapsed().as_secs_f64();
    let most = f64::from(BURST) + RATE * time;
    println!("8 limiters on one redis: {taken} of {asked} calls in {time:.3} s, at most {most:.1}");
    assert!(f64::from(taken) <= most + 1.0, "{taken} of {most}");
    // And no less, however the calls met: they asked all the time.
    assert!(f64::from(taken) >= most * 0.9, "{taken} of {most}");
}

#[tokio::test]
async fn the_layer_refuses_with_what_the_server_says() {
    let Some(server) = Server::start().await else {
        return;
    };
    let limiter = Arc::new(server.limiter(0.1, 2));
    let key = KeyBy::from_fn(|head| Some(head.uri().path().to_owned()));
    let layer = RateLimitLayer::shared(limiter.clone(), key).headers(true);
    let call = async || {
        let service = layer.layer(Probe::new(Answer::Frames));
        service.oneshot(request()).await
    };
    let response = call().await.unwrap();
    assert_eq!(
        response.headers()["ratelimit-policy"],
        "\"default\";q=2;w=20"
    );
    assert_eq!(response.headers()["ratelimit"], "\"default\";r=1;t=10");
    call().await.unwrap();
    let wait = retry_after(call().await).unwrap();
    assert!(wait > secs(5) && wait <= secs(10), "{wait:?}");
    assert_eq!(reason(call().await), Some(Reason::RateLimited));
    // Another key, another prefix, and more than there will ever be.
    assert!(limiter.take(b"/other", 2).await.unwrap().taken.is_ok());
    let other = server.limiter(0.1, 2).prefix("other:");
    assert!(other.take(b"/", 1).await.unwrap().taken.is_ok());
    let never = other.take(b"/", 3).await.unwrap();
    assert_eq!(never.taken, Err(Duration::MAX));
}

#[tokio::test]
async fn a_call_waits_for_a_token_of_the_fleet() {
    let Some(server) = Server::start().await else {
        return;
    };
    let limiter = Arc::new(server.limiter(20.0, 1));
    let layer = RateLimitLayer::shared(limiter, None).max_wait(secs(10));
    let begun = Instant::now();
    for _ in 0..5 {
        let service = layer.layer(Probe::new(Answer::Frames));
        service.oneshot(request()).await.unwrap();
    }
    assert!(begun.elapsed() >= millis(199), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_changed_rate_is_that_of_those_who_wait_too() {
    let Some(server) = Server::start().await else {
        return;
    };
    let limiter = Arc::new(server.limiter(20.0, 1));
    let layer = RateLimitLayer::shared(limiter.clone(), None).max_wait(secs(10));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        calls.spawn(layer.layer(Probe::new(Answer::Frames)).oneshot(request()));
    }
    calls.join_next().await.unwrap().unwrap().unwrap();
    limiter.set_rate(0.01, 1);
    let begun = Instant::now();
    let mut went = 0;
    while let Some(call) = calls.join_next().await {
        went += usize::from(call.unwrap().is_ok());
    }
    // None of them waits for minutes, and what was under way may have gone.
    assert!(begun.elapsed() < secs(9), "{:?}", begun.elapsed());
    assert!(went <= 1, "{went}");
}

#[tokio::test]
async fn without_its_server_a_call_goes_on_or_is_refused_and_comes_back_with_it() {
    let Some(mut server) = Server::start().await else {
        return;
    };
    let limiter = Arc::new(server.limiter(0.1, 1).timeout(millis(200)));
    let layer = RateLimitLayer::shared(limiter, None);
    let open = layer.clone().on_error(OnError::Allow);
    let closed = layer.on_error(OnError::Refuse);
    let call = async |layer: &RateLimitLayer| {
        let service = layer.layer(Probe::new(Answer::Frames));
        service.oneshot(request()).await.map(drop)
    };
    call(&closed).await.unwrap();
    assert_eq!(reason(call(&open).await), Some(Reason::RateLimited));

    server.process.kill().unwrap();
    server.process.wait().unwrap();
    for _ in 0..3 {
        call(&open).await.unwrap();
        assert_eq!(reason(call(&closed).await), Some(Reason::FilterFailed));
    }

    std::fs::remove_file(server.dir.path().join("redis.sock")).ok();
    server.process = Server::spawn(server.dir.path()).unwrap();
    server.answers().await;
    // The new server knows of no calls.
    tokio::time::timeout(secs(30), async {
        while call(&closed).await.is_err() {
            tokio::time::sleep(millis(20)).await;
        }
    })
    .await
    .expect("a connection made anew");
    assert_eq!(reason(call(&closed).await), Some(Reason::RateLimited));
}

#[tokio::test]
async fn a_bucket_that_takes_ages_to_fill_is_kept_and_one_that_is_fast_too() {
    let Some(server) = Server::start().await else {
        return;
    };
    for (rate, burst) in [
        (f64::MIN_POSITIVE, u32::MAX),
        (f64::MAX, u32::MAX),
        (0.0, 1),
    ] {
        let limiter = server.limiter(rate, burst).prefix(&format!("{rate}:"));
        let all = limiter.take(b"all", burst).await.unwrap();
        assert_eq!(all.taken, Ok(()), "{rate}");
        // What is gone is remembered, for as long as the server can count.
        if rate < 1.0 {
            let wait = limiter
                .take(b"all", burst)
                .await
                .unwrap()
                .taken
                .unwrap_err();
            assert!(wait > secs(3600), "{wait:?}");
        }
    }
}
