//! A plugin is exchanged while it is called, again and again: by its file, by the program, and back.
//!
//! Run it with `cargo run --example hot-reload-plugin`. The plugin is a counter over HTTP, which the example serves itself in
//! three versions, the third of which is broken. The config says `strategy: blue-green`: what is new is watched while it
//! serves, and taken back if it does worse than what it replaced. The example ends with an error if a call fails
//! that the broken version did not fail itself, or if one is counted twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower_plugins::config::PluginSpec;
use tower_plugins::reload::{ReloadEvent, ReloadPhase, ReloadStatus};
use tower_plugins::{Body, Plugin, Plugins};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const CALLERS: usize = 4;

/// Between two calls of a caller.
const PAUSE: Duration = Duration::from_millis(1);

#[tokio::main]
async fn main() -> Result {
    let counter = Arc::<Counter>::default();
    let (v1, v2, v3) = (
        serve("v1", &counter).await?,
        serve("v2", &counter).await?,
        serve("v3", &counter).await?,
    );
    let directory = tempfile::tempdir()?;
    let file = File(directory.path().join("plugins.yaml"));

    say("1. A config file names the plugin `counter`. It starts, and 4 callers call without end.");
    file.save(&config(&v1))?;
    println!("{}", indent(&config(&v1)));
    let plugins = Plugins::builder().watch(&file.0).await?;
    let calls = Calls::to(plugins.plugin("counter"));
    let callers = calls.begin();
    tokio::time::sleep(Duration::from_millis(500)).await;

    by_the_file(&plugins, &file, [&v2, &v3], &calls).await?;
    by_the_program(&plugins, &file, &calls, [&v1, &v2]).await?;
    back_in_time(&plugins, &calls).await?;

    say("9. The program ends.");
    calls.stop.store(true, Relaxed);
    callers.join_all().await;
    let (made, failed) = (calls.made.load(Relaxed), calls.failed.load(Relaxed));
    let report = plugins.shutdown(Duration::from_secs(5)).await?;
    let cancelled: usize = report.retired.iter().map(|node| node.cancelled).sum();
    let (broken, counted) = (counter.broken.load(Relaxed), counter.total.load(Relaxed));
    println!(
        "   shut down in {:.1?}, {cancelled} calls cancelled",
        report.elapsed
    );
    println!(
        "   {made} calls; the counter stands at {counted}: each that was answered counts once"
    );
    println!(
        "   {failed} calls failed, all of them those that the broken version answered with 500"
    );
    check(failed == broken, "a call failed that no plugin failed")?;
    check(
        made == counted + failed,
        "a call was lost, or counted twice",
    )?;
    println!("\nhot-reload-plugin: {made} calls, {failed} failed, done");
    Ok(())
}

/// Good and bad edits of the config file.
async fn by_the_file(plugins: &Plugins, file: &File, [v2, v3]: [&str; 2], calls: &Calls) -> Result {
    let mut events = plugins.events();

    say("2. The file is edited: `counter` moves to version 2, which does no worse, and stays.");
    file.save(&config(v2))?;
    follow(&mut events, |event| matches!(event, ReloadEvent::Judged(_))).await?;
    let status = at_rest(plugins).await?;
    check(status.generation.get() == 2, "generation 2 is to serve")?;
    println!("   a call is answered: {}", calls.one().await?);

    say("3. An edit with a mistake is refused, and what runs goes on.");
    file.save(&config(v2).replace("max_retries", "max_retrys"))?;
    let is_refused = |event: &ReloadEvent| matches!(event, ReloadEvent::Rejected(_));
    follow(&mut events, is_refused).await?;
    check(
        plugins.status().generation.get() == 2,
        "what runs is to go on",
    )?;

    say(
        "4. An edit without a mistake, but version 3 fails one call in three. Nobody says a word to the program.",
    );
    let failed = calls.failed.load(Relaxed);
    check(failed == 0, "no call is to fail so far")?;
    file.save(&config(v3))?;
    let is_back = |event: &ReloadEvent| matches!(event, ReloadEvent::RolledBack { .. });
    follow(&mut events, is_back).await?;
    let failed = calls.failed.load(Relaxed);
    println!("   it was seen after {failed} failed calls, and version 2 serves again");
    check(failed > 0, "version 3 is to have failed calls")?;
    println!("   a call is answered: {}", calls.one().await?);

    say("5. The same config once more: it is frozen, until it says something else.");
    file.save(&format!("# saved again\n{}", config(v3)))?;
    let event = follow(&mut events, is_refused).await?;
    let is_frozen = matches!(event, ReloadEvent::Rejected(error) if error.is_frozen());
    check(is_frozen, "it is to be frozen")?;

    file.save(&config(v2))?;
    let mut status = plugins.subscribe();
    status
        .wait_for(|status| status.last_error.is_none())
        .await?;
    println!("   the file is mended: it says what runs, so nothing is to be done");
    Ok(())
}

/// What the program changes stands over the file.
async fn by_the_program(
    plugins: &Plugins,
    file: &File,
    calls: &Calls,
    [v1, v2]: [&str; 2],
) -> Result {
    say(
        "6. The program itself has `counter` be at version 1, whatever the file says: first only as a plan.",
    );
    let mut spec = PluginSpec::http("counter", v1)?;
    spec.policy.deadline = Some(Duration::from_secs(2));
    let report = plugins.update(spec.clone()).dry_run().await?;
    println!("   it would be: {}", report.plan);
    check(
        report.generation == plugins.status().generation,
        "a dry run does nothing",
    )?;
    let report = plugins.update(spec).await?;
    println!("   it was done: {report}");
    let times = report.times;
    println!(
        "   planned in {:.1?}, built in {:.1?}, put in place in {:.1?}, watched for {:.1?}",
        times.planning, times.building, times.publishing, times.watching
    );

    say(
        "7. The file is edited, but not what it says of `counter`: what the program said of that stands.",
    );
    let generation = report.generation;
    let mut status = plugins.subscribe();
    file.save(&format!(
        "{}  - name: clock\n    transport: http\n    endpoint: {v2}\n",
        config(v2)
    ))?;
    status
        .wait_for(|status| status.generation > generation && status.phase == ReloadPhase::Idle)
        .await?;
    let overlay = plugins.status().overlay;
    let overlay: Vec<_> = overlay
        .iter()
        .map(|(name, kind)| format!("{name} ({kind})"))
        .collect();
    println!(
        "   plugins: {}; of the program: {}",
        plugins.names().join(", "),
        overlay.join(", ")
    );
    check(
        overlay == ["counter (updated)"],
        "what the program said is to stand",
    )?;
    let answer = calls.one().await?;
    println!("   a call is answered: {answer}");
    check(answer.ends_with("v1"), "version 1 is to answer")
}

/// The history, and back to a generation of it.
async fn back_in_time(plugins: &Plugins, calls: &Calls) -> Result {
    say("8. Back to generation 2, as a whole.");
    for entry in plugins.history() {
        let why = entry.rolled_back.as_ref();
        let why = why
            .map(|why| format!("; taken back: {why}"))
            .unwrap_or_default();
        println!("   generation {}: {}{why}", entry.generation, entry.plan);
    }
    let second = plugins
        .history()
        .into_iter()
        .find(|entry| entry.generation.get() == 2);
    let second = second.ok_or("generation 2 is in the history")?;
    let report = plugins.rollback(second.generation).await?;
    println!("   {report}");
    check(plugins.names() == ["counter"], "there was no clock then")?;
    let answer = calls.one().await?;
    println!("   a call is answered: {answer}");
    check(answer.ends_with("v2"), "version 2 is to answer")
}

/// The config with the counter at `url`.
fn config(url: &str) -> String {
    format!(
        "\
reload:
  strategy: blue-green
  observe_for: 1s
plugins:
  - name: counter
    transport: http
    endpoint: {url}
    retry:
      max_retries: 2
"
    )
}

/// Says what happens, up to an event that is the `last`.
async fn follow(
    events: &mut Receiver<ReloadEvent>,
    last: impl Fn(&ReloadEvent) -> bool,
) -> Result<ReloadEvent> {
    loop {
        let event = events.recv().await?;
        if let Some(words) = words(&event) {
            println!("   - {words}");
        }
        if last(&event) {
            return Ok(event);
        }
    }
}

fn words(event: &ReloadEvent) -> Option<String> {
    Some(match event {
        ReloadEvent::Planned(plan) => format!("planned: {plan}"),
        ReloadEvent::Building => "what is new is built, beside what serves".to_owned(),
        ReloadEvent::Waiting(names) => {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            format!("waiting until it can be reached: {}", names.join(", "))
        }
        ReloadEvent::Published { generation, .. } => {
            format!("generation {generation} serves, from one call to the next")
        }
        ReloadEvent::Watching(_) => {
            "the old one is kept, and the new one compared with it".to_owned()
        }
        ReloadEvent::Judged(verdict) => format!("it is found {verdict}, and the old one goes"),
        ReloadEvent::Rejected(error) => match error.config() {
            Some(problems) => format!("refused:\n{}", indent(&problems.to_string())),
            None => format!("refused: {error}"),
        },
        ReloadEvent::RolledBack { why, .. } => format!("taken back: {why}"),
        // Of nodes that left, which may come whenever their last call ends.
        _ => return None,
    })
}

/// How reloading stands once nothing is under way.
async fn at_rest(plugins: &Plugins) -> Result<ReloadStatus> {
    let mut status = plugins.subscribe();
    let at_rest = |status: &ReloadStatus| status.phase == ReloadPhase::Idle && status.retiring == 0;
    Ok(status.wait_for(at_rest).await?.clone())
}

/// Calls to the counter, each of which is noted.
struct Calls {
    plugin: Plugin,
    made: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

impl Calls {
    fn to(plugin: Plugin) -> Arc<Self> {
        Arc::new(Self {
            plugin,
            made: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        })
    }

    /// Counts one more; gives what the counter says.
    async fn one(&self) -> Result<String> {
        let answer = self.answer().await;
        self.made.fetch_add(1, Relaxed);
        self.failed.fetch_add(answer.is_err().into(), Relaxed);
        answer
    }

    async fn answer(&self) -> Result<String> {
        let request = Request::post("/add").body(Body::empty())?;
        let response = self.plugin.clone().oneshot(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK {
            return Err(format!("the counter answers {status}").into());
        }
        Ok(String::from_utf8(answer.to_vec())?)
    }

    /// Calls from some tasks until it is told to stop.
    fn begin(self: &Arc<Self>) -> JoinSet<()> {
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let calls = Arc::clone(self);
            callers.spawn(async move {
                while !calls.stop.load(Relaxed) {
                    // One that fails is noted.
                    drop(calls.one().await);
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        callers
    }
}

/// What all versions of the counter have in common.
#[derive(Default)]
struct Counter {
    total: AtomicU64,
    /// Calls that the broken version did not count.
    broken: AtomicU64,
    asked: AtomicU64,
}

impl Counter {
    fn add(&self, version: &str) -> Result<String, StatusCode> {
        if version == "v3" && self.asked.fetch_add(1, Relaxed).is_multiple_of(3) {
            self.broken.fetch_add(1, Relaxed);
            return Err(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let total = self.total.fetch_add(1, Relaxed) + 1;
        Ok(format!("{total}, says {version}"))
    }
}

/// Serves a version of the counter; gives its URL.
async fn serve(version: &'static str, counter: &Arc<Counter>) -> Result<String> {
    let counter = Arc::clone(counter);
    let add = move || async move { counter.add(version) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = Router::new().route("/add", post(add));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

struct File(PathBuf);

impl File {
    /// As editors and deployments do: written beside it, then renamed.
    fn save(&self, text: &str) -> Result {
        let beside: &Path = &self.0.with_extension("new");
        std::fs::write(beside, text)?;
        std::fs::rename(beside, &self.0)?;
        Ok(())
    }
}

fn check(holds: bool, what: &str) -> Result {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn say(step: &str) {
    println!("\n{step}");
}

fn indent(text: &str) -> String {
    let lines = text.lines().map(|line| format!("   | {line}"));
    lines.collect::<Vec<_>>().join("\n")
}
