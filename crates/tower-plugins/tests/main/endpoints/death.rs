//! One of three endpoints dies under load, and comes back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tower_plugins::config::Protocol;
use tower_plugins::{Body, Plugin, Plugins};

use super::{at, shared};
use crate::support::{Server, Socket, causes, config, get, read, within};

const CALLERS: usize = 12;
/// Of the config below: how many failures open a breaker, and how many probes close it.
const THRESHOLD: usize = 5;
const PROBES: usize = 2;

/// A server whose calls take some milliseconds.
async fn server(socket: Socket, calls: &Arc<AtomicUsize>) -> Server {
    let calls = Arc::clone(calls);
    Server::start(socket, Protocol::Http1, move |_| {
        calls.fetch_add(1, SeqCst);
        async {
            sleep(Duration::from_millis(2)).await;
            Response::new(Body::from("here"))
        }
    })
    .await
}

/// In the place of a dead server: each attempt at it is a connection that is closed at once.
struct Grave {
    attempts: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Grave {
    async fn dig(at: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let attempts: Arc<AtomicUsize> = shared();
        let counted = Arc::clone(&attempts);
        let task = tokio::spawn(async move {
            loop {
                let _ = listener.accept().await.unwrap();
                counted.fetch_add(1, SeqCst);
            }
        });
        Self { attempts, task }
    }

    fn attempts(&self) -> usize {
        self.attempts.load(SeqCst)
    }

    async fn fill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// What callers meet who call until they are told to stop.
#[derive(Default)]
struct Load {
    calls: AtomicUsize,
    failed: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Load {
    async fn call(self: Arc<Self>, plugin: Plugin) {
        while !self.stop.load(SeqCst) {
            match crate::support::call(&plugin, get("/")).await {
                Ok(response) if response.status() == 200 => drop(read(response).await),
                Ok(response) => self.fail(response.status().to_string()),
                Err(error) => self.fail(causes(&error)),
            }
            self.calls.fetch_add(1, SeqCst);
        }
    }

    fn fail(&self, why: String) {
        self.failed.lock().unwrap().push(why);
    }

    /// Waits for so many calls more.
    async fn more(&self, calls: usize) {
        let until = self.calls.load(SeqCst) + calls;
        within(async {
            while self.calls.load(SeqCst) < until {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_costs_no_idempotent_call_gets_only_probes_and_comes_back_without_a_spike()
{
    let counts: [Arc<AtomicUsize>; 3] = [shared(), shared(), shared()];
    let mut servers = Vec::new();
    for count in &counts {
        servers.push(server(Socket::Tcp, count).await);
    }
    let ends: Vec<_> = servers
        .iter()
        .map(|end| format!("'{}'", end.address))
        .collect();
    let yaml = format!(
        "plugins: {{ p: {{ transport: http, endpoints: [{}], retry: {{ max_retries: 4, initial_interval: 1ms }},
            circuit_breaker: {{ failure_threshold: {THRESHOLD}, success_threshold: {PROBES}, recovery_timeout: 50ms,
                recovery_jitter: 0 }},
            load_balancing: {{ slow_start_window: 1s }} }} }}",
        ends.join(", ")
    );
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    let (_, breaker) = plugins.breakers("p").swap_remove(0);
    let load: Arc<Load> = shared();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(Arc::clone(&load).call(plugins.plugin("p")));
    }
    load.more(1_000).await;

    // It dies, with the calls that it has.
    let dead = servers.remove(0);
    let place = at(&dead);
    let killed = Instant::now();
    drop(dead);
    let grave = within(async {
        loop {
            match TcpListener::bind(place).await {
                Ok(free) => break drop(free),
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    });
    grave.await;
    let grave = Grave::dig(place).await;
    while killed.elapsed() < Duration::from_secs(1) {
        load.more(20).await;
    }
    let (attempts, changes) = (grave.attempts(), breaker.changes());
    load.more(3_000).await;
    let (more, rounds) = (
        grave.attempts() - attempts,
        (breaker.changes() - changes) as usize,
    );
    println!(
        "{attempts} attempts in the first second; then {more} in {rounds} changes of the breaker, of 3000 calls"
    );
    // Where the breaker is open each probe that fails opens it again, and there are at most as many as would close it;
    // where it is not, nobody was there often enough to open it.
    assert!(
        more <= PROBES * (rounds / 2 + 1) + CALLERS,
        "{more} in {rounds}"
    );

    // It lives again: by and by it has what the others have.
    grave.fill().await;
    let born = Arc::clone(&counts[0]);
    born.store(0, SeqCst);
    let again = server(Socket::At(place), &born).await;
    let mut shares = Vec::new();
    for _ in 0..300 {
        let before = born.load(SeqCst);
        load.more(250).await;
        shares.push(born.load(SeqCst) - before);
        if shares.len() >= 10 && shares.iter().rev().take(3).all(|share| *share > 50) {
            break;
        }
    }
    load.stop.store(true, SeqCst);
    within(callers.join_all()).await;
    println!("of each 250 calls it then had {shares:?}");
    let failed = load.failed.lock().unwrap();
    assert!(
        failed.is_empty(),
        "{} failed: {:?}",
        failed.len(),
        failed.first()
    );
    // A third is 83 of 250.
    assert!(shares.iter().all(|share| *share < 150), "{shares:?}");
    assert!(
        shares.iter().rev().take(3).all(|share| *share > 50),
        "{shares:?}"
    );
    drop(again);
}
