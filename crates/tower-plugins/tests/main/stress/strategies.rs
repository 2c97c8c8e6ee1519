//! A thousand plugins at a few servers, of which one in a hundred changes at each reload, by each strategy.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::stream;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tower::ServiceExt;
use tower_plugins::config::{Config, PluginName, PluginSpec};
use tower_plugins::reload::{Retirement, Strategy};
use tower_plugins::{Error, Plugin, Plugins, Reason};
use tower_plugins_layers::BoxError;

use super::servers::{CHUNKS, Servers, chunk};
use crate::grpc::server::{self as grpc, Way, number};
use crate::support::{channel, data, get, post, within};

const PLUGINS: usize = 1_000;
/// One in a hundred.
const CHANGED: usize = PLUGINS / 100;
/// HTTP/1.1 and HTTP/2 over TCP, the same over Unix sockets, and gRPC over either.
const KINDS: usize = 6;
/// Callers of each kind.
const CALLERS: usize = 2;

/// The plugins and where they are.
struct Fleet {
    http: Servers,
    grpc: [grpc::Server; 2],
    config: Config,
}

fn name(n: usize) -> String {
    format!("n{n}")
}

/// Those that change at `step`.
fn changed(step: usize) -> impl Iterator<Item = usize> {
    (0..CHANGED).map(move |n| (step * CHANGED + n) % PLUGINS)
}

impl Fleet {
    async fn start(reload: &str) -> Self {
        let mut fleet = Self {
            http: Servers::start().await,
            grpc: [
                grpc::Server::start(Way::Tcp).await,
                grpc::Server::start(Way::Unix).await,
            ],
            config: crate::support::config(&format!(
                "{{ allow_empty: true, plugins: {{}}, reload: {{ {reload} }} }}"
            )),
        };
        for n in 0..PLUGINS {
            let spec = fleet.spec(n, 0);
            fleet.config.insert(spec);
        }
        fleet
    }

    /// The plugin `n`, which is at another server, or only has another policy, with each change.
    fn spec(&self, n: usize, step: usize) -> PluginSpec {
        let mut spec = match n % KINDS {
            kind @ 0..4 => self.http.spec(&name(n), (kind + step / 2) % 4, ""),
            kind => {
                let config = self.grpc[(kind + step / 2) % 2].config("retry: off");
                let mut spec = config.plugins["p"].clone();
                spec.name = PluginName::new(&name(n)).unwrap();
                spec
            }
        };
        spec.policy.deadline = Some(Duration::from_secs(60 + step as u64));
        spec.policy.drain_timeout = Duration::from_secs(60);
        spec
    }

    fn step(&mut self, step: usize) -> Config {
        for n in changed(step) {
            let spec = self.spec(n, step);
            self.config.insert(spec);
        }
        self.config.clone()
    }
}

/// How a call ended that was not answered.
enum Met {
    Cancelled,
    /// Its node had left before it began: the plugin was not asked.
    NotBegun,
    Failed(String),
}

impl From<Error> for Met {
    fn from(error: Error) -> Self {
        match error.reason() {
            Some(Reason::DrainCancelled) => Self::Cancelled,
            Some(Reason::Draining) => Self::NotBegun,
            _ => Self::Failed(format!("{error:?}")),
        }
    }
}

impl From<BoxError> for Met {
    fn from(error: BoxError) -> Self {
        match error.downcast::<Error>() {
            Ok(error) => (*error).into(),
            Err(error) => Self::Failed(format!("{error:?}")),
        }
    }
}

impl From<Status> for Met {
    fn from(status: Status) -> Self {
        let says = |words| status.code() == Code::Unavailable && status.message().contains(words);
        if says("the call outlived its drain") {
            Self::Cancelled
        } else if says("no new calls are taken") {
            Self::NotBegun
        } else {
            Self::Failed(format!("{status:?}"))
        }
    }
}

/// What the callers have met.
#[derive(Default)]
struct Counts {
    step: AtomicUsize,
    stop: AtomicBool,
    well: AtomicU64,
    cancelled: AtomicU64,
    not_begun: AtomicU64,
}

async fn http(plugin: Plugin, n: u64) -> Result<(), Met> {
    let text = format!("{} {n}", plugin.name());
    let (request, whole) = match n % 4 {
        0 => (get("/download"), (0..CHUNKS).flat_map(chunk).collect()),
        1 => {
            let (frames, body) = channel();
            for byte in text.clone().into_bytes() {
                frames.send(Frame::data(vec![byte].into())).unwrap();
            }
            (
                http::Request::post("/upload").body(body).unwrap(),
                text.into_bytes(),
            )
        }
        _ => (post("/echo", text.clone()), text.into_bytes()),
    };
    let response = plugin.oneshot(request).await?;
    if response.status() != 200 {
        return Err(Met::Failed(response.status().to_string()));
    }
    let body = response.into_body().collect().await?.to_bytes();
    if body == whole {
        return Ok(());
    }
    Err(Met::Failed(format!(
        "{} bytes of {}",
        body.len(),
        whole.len()
    )))
}

/// Numbers that go both ways, for as long as a download.
async fn rpc(plugin: Plugin) -> Result<(), Met> {
    let mut client = grpc::client(plugin);
    let numbers = stream::unfold(0_u32, |sent| async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        (sent < 30).then(|| (number(1.0), sent + 1))
    });
    let mut sums = client.running_sum(numbers).await?.into_inner();
    let mut last = 0.0;
    while let Some(next) = sums.message().await? {
        last = next.value;
    }
    if last == 30.0 {
        return Ok(());
    }
    Err(Met::Failed(format!("{last} of 30")))
}

/// Calls plugins of one kind, one after the other, half of the time such as change.
async fn caller(
    plugins: Plugins,
    kind: usize,
    seed: u64,
    counts: Arc<Counts>,
) -> Result<(), String> {
    let mut n = seed;
    while !counts.stop.load(SeqCst) {
        n += 1;
        let step = counts.step.load(SeqCst) + n as usize / 2 % 2;
        let changing = changed(step).find(|n| n % KINDS == kind);
        let any = n as usize * 7 * KINDS + kind;
        let target = changing
            .filter(|_| n.is_multiple_of(2))
            .unwrap_or(any % PLUGINS / KINDS * KINDS + kind);
        let plugin = plugins.plugin(&name(target));
        let ended = if kind < 4 {
            http(plugin, n).await
        } else {
            rpc(plugin).await
        };
        let counter = match ended {
            Ok(()) => &counts.well,
            Err(Met::Cancelled) => &counts.cancelled,
            Err(Met::NotBegun) => &counts.not_begun,
            Err(Met::Failed(why)) => return Err(format!("{}: {why}", name(target))),
        };
        counter.fetch_add(1, SeqCst);
    }
    Ok(())
}

/// Reloads `reloads` times by `strategy` under load; gives what callers met, and what the reports say was cancelled.
async fn load(strategy: Strategy, reload: &str, reloads: usize) -> (Arc<Counts>, u64) {
    let mut fleet = Fleet::start(reload).await;
    let plugins = Plugins::builder()
        .start(fleet.config.clone())
        .await
        .unwrap();
    let counts = Arc::<Counts>::default();
    let mut callers = JoinSet::new();
    for caller_of in 0..KINDS * CALLERS {
        let (kind, seed) = (caller_of % KINDS, caller_of as u64 * 1_000);
        callers.spawn(caller(plugins.clone(), kind, seed, Arc::clone(&counts)));
    }
    let mut retirements = JoinSet::new();
    for step in 1..=reloads {
        // Each kind of call has been made since the last.
        let before = counts.well.load(SeqCst);
        within(async {
            while counts.well.load(SeqCst) < before + 20 && !callers.is_empty() {
                if let Some(ended) = callers.try_join_next() {
                    ended.unwrap().unwrap();
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        let report = within(
            plugins
                .reload(fleet.step(step))
                .strategy(strategy)
                .into_future(),
        )
        .await;
        let report = report.unwrap();
        assert_eq!(
            (report.strategy, report.retirement.len()),
            (strategy, CHANGED)
        );
        retirements.spawn(cancelled(report.retirement));
        counts.step.store(step, SeqCst);
    }
    counts.stop.store(true, SeqCst);
    for ended in within(callers.join_all()).await {
        ended.unwrap();
    }
    let cancelled = within(retirements.join_all()).await.into_iter().sum();
    within(plugins.subscribe().wait_for(|status| status.retiring == 0))
        .await
        .unwrap();
    assert_eq!(plugins.status().cancelled, cancelled);
    (counts, cancelled)
}

async fn cancelled(retirement: Retirement) -> u64 {
    let retired = retirement.wait().await.into_iter();
    retired
        .map(|retired| {
            assert_eq!(retired.remaining, 0, "{retired:?}");
            retired.cancelled as u64
        })
        .sum()
}

async fn no_call_fails(strategy: Strategy, reload: &str, reloads: usize) {
    let (counts, cancelled) = load(strategy, reload, reloads).await;
    let [well, failed, not_begun] =
        [&counts.well, &counts.cancelled, &counts.not_begun].map(|counter| counter.load(SeqCst));
    println!("{strategy:?}: {reloads} reloads, {well} calls");
    assert_eq!((failed, not_begun, cancelled), (0, 0, 0), "of {well}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graceful_fails_no_call_of_a_thousand_plugins() {
    no_call_fails(Strategy::Graceful, "", 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_fails_no_call_of_a_thousand_plugins() {
    no_call_fails(Strategy::Rolling, "max_concurrent_reloads: 4", 15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blue_green_fails_no_call_of_a_thousand_plugins() {
    no_call_fails(Strategy::BlueGreen, "observe_for: 100ms", 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_fails_no_call_of_a_thousand_plugins() {
    let reload = "canary_steps: [10, 50], canary_step_time: 100ms, observe_for: 100ms";
    no_call_fails(Strategy::Canary, reload, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn immediate_cancels_what_is_under_way_on_nodes_that_left_and_all_count_the_same() {
    let (counts, cancelled) = load(Strategy::Immediate, "", 20).await;
    let [well, failed, not_begun] =
        [&counts.well, &counts.cancelled, &counts.not_begun].map(|counter| counter.load(SeqCst));
    println!("{well} calls, {failed} cancelled, {not_begun} refused before they began");
    assert_eq!(failed, cancelled, "callers and reports count the same");
    assert!(failed > 0 && well > failed, "{failed} of {well}");
}

/// A stream of plugin `n` that has begun, and goes on until it is told to end: by `true`, or never.
async fn stream_of(
    plugins: &Plugins,
    n: usize,
) -> (
    mpsc::UnboundedSender<()>,
    tokio::task::JoinHandle<Result<(), Met>>,
) {
    let plugin = plugins.plugin(&name(n));
    let (end, mut ended) = mpsc::unbounded_channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let reader = if n % KINDS < 4 {
        let (frames, body) = channel();
        frames.send(data("begun")).unwrap();
        tokio::spawn(async move {
            let request = http::Request::post("/echo").body(body).unwrap();
            let mut body = plugin.oneshot(request).await?.into_body();
            let first = body.frame().await.unwrap()?;
            assert_eq!(first.into_data().unwrap(), "begun");
            begun.send(()).unwrap();
            tokio::spawn(async move {
                if ended.recv().await.is_some() {
                    frames.send(data("end")).unwrap();
                } else {
                    frames.closed().await;
                }
            });
            assert_eq!(body.collect().await?.to_bytes(), "end");
            Ok(())
        })
    } else {
        let (numbers, sent) = mpsc::unbounded_channel();
        numbers.send(number(1.0)).unwrap();
        tokio::spawn(async move {
            let mut client = grpc::client(plugin);
            let sent = stream::unfold(sent, async |mut sent| Some((sent.recv().await?, sent)));
            let answers = client.running_sum(sent).await?;
            let mut answers = answers.into_inner();
            assert_eq!(answers.message().await?.unwrap(), number(1.0));
            begun.send(()).unwrap();
            tokio::spawn(async move {
                if ended.recv().await.is_some() {
                    numbers.send(number(2.0)).unwrap();
                } else {
                    numbers.closed().await;
                }
            });
            assert_eq!(answers.message().await?.unwrap(), number(3.0));
            assert!(answers.message().await?.is_none());
            Ok(())
        })
    };
    within(has_begun).await.unwrap();
    (end, reader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_streams_end_inside_the_drain_timeout_or_are_cancelled_counted_and_reported() {
    for strategy in [
        Strategy::Graceful,
        Strategy::Rolling,
        Strategy::BlueGreen,
        Strategy::Canary,
    ] {
        let reload =
            "canary_steps: [50], canary_step_time: 100ms, observe_for: 100ms, graceful_timeout: 1s";
        let mut fleet = Fleet::start(reload).await;
        let plugins = Plugins::builder()
            .start(fleet.config.clone())
            .await
            .unwrap();
        let (mut short, mut long) = (Vec::new(), Vec::new());
        for n in changed(1) {
            short.push(stream_of(&plugins, n).await);
            long.push(stream_of(&plugins, n).await);
        }
        let report = plugins
            .reload(fleet.step(1))
            .strategy(strategy)
            .await
            .unwrap();
        for (end, reader) in short {
            end.send(()).unwrap();
            assert!(within(reader).await.unwrap().is_ok());
        }
        assert!(long.iter().all(|(_, reader)| !reader.is_finished()));
        let retired = within(report.retirement.wait()).await;
        for retired in &retired {
            assert_eq!(
                (retired.drained, retired.cancelled, retired.remaining),
                (1, 1, 0),
                "{retired:?}"
            );
        }
        assert_eq!(retired.len(), CHANGED);
        for (end, reader) in long {
            assert!(matches!(within(reader).await.unwrap(), Err(Met::Cancelled)));
            drop(end);
        }
        within(
            plugins
                .subscribe()
                .wait_for(|status| status.cancelled == CHANGED as u64),
        )
        .await
        .unwrap();
    }
}
