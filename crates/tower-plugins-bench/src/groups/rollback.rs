//! From a config that does worse to the one before it.

use std::convert::Infallible;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tower::service_fn;
use tower_plugins::config::{Config, Format};
use tower_plugins::{Body, Plugin, Plugins};
use tower_service::Service;

use super::{Group, full};
use crate::Result;
use crate::harness::{Calls, Run, Sample, Variant};

pub(super) const GROUP: Group = Group {
    name: "rollback",
    about: "Wall time, of blue-green at 1 000 calls a second, of which 100 in 100 fail with the new config, or 10 in 100. `first-failure-to-last`: from the first call that fails to the last, `-to-told`: to where the reload says that it was taken back. The swap back is a `swap-C-of-N-publishing` of the group `reload`.",
    variants,
    prepare: None,
    summary: None,
};

fn variants() -> Vec<Variant> {
    let variants = [
        ("first-failure-to-last", "broken"),
        ("first-failure-to-last-of-10-in-100", "flaky"),
    ];
    let variants = variants.map(|(name, bad)| {
        Variant::new(name, "", Calls::Few(1), move || taken_back(bad)).without_floor()
    });
    variants.into()
}

/// How long the old config serves before it is changed.
const BEFORE: Duration = Duration::from_millis(1500);

/// How long failures may still come of calls that were under way.
const AFTER: Duration = Duration::from_millis(100);

fn config(service: &str) -> Result<Config> {
    let text = format!(
        "
reload: {{ strategy: blue-green }}
plugins:
  probe: {{ transport: in-process, endpoint: {service}, circuit_breaker: off, retry: off }}
"
    );
    Ok(Config::parse(&text, Format::Yaml)?)
}

async fn start() -> Result<Plugins> {
    let failing = |percent: u8| {
        service_fn(move |_: Request<Body>| async move {
            let mut response = full::answer();
            if fastrand::u8(0..100) < percent {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
            Ok::<Response<Body>, Infallible>(response)
        })
    };
    let builder = Plugins::builder()
        .service("good", full::null())
        .service("broken", failing(100))
        .service("flaky", failing(10));
    Ok(builder.start(config("good")?).await?)
}

/// The first call that failed, and the last.
type Failures = Arc<Mutex<Option<(Instant, Instant)>>>;

fn taken_back(bad: &'static str) -> Result<Run> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    Ok(Box::new(move |calls| {
        let mut sample = Sample {
            time: Duration::ZERO,
            parts: vec![("to-told", Duration::ZERO)],
        };
        for _ in 0..calls {
            let (last, told) = runtime.block_on(once(bad))?;
            sample.time += last;
            for (_, part) in &mut sample.parts {
                *part += told;
            }
        }
        Ok(Some(sample))
    }))
}

async fn once(bad: &str) -> Result<(Duration, Duration)> {
    // A set of its own: nothing is taken back twice in ten minutes.
    let plugins = start().await?;
    let failures = Failures::default();
    let load = load(plugins.plugin("probe"), Arc::clone(&failures));
    sleep(BEFORE).await;
    let reload = plugins.reload(config(bad)?).into_future().await;
    let told = Instant::now();
    sleep(AFTER).await;
    load.abort();
    match reload {
        Err(error) if error.is_rolled_back() => {}
        other => return Err(format!("it was not taken back: {other:?}").into()),
    }
    let failures = failures.lock().map_err(|_| "the load panicked")?;
    let (first, last) = failures.ok_or("no call failed")?;
    Ok((last - first, told - first))
}

/// A thousand calls a second.
fn load(mut plugin: Plugin, failures: Failures) -> JoinHandle<Result> {
    tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            ticks.tick().await;
            let response = plugin.call(full::request()).await?;
            let failed = response.status().is_server_error();
            full::drain(response).await?;
            if failed {
                let now = Instant::now();
                let mut failures = failures.lock().map_err(|_| "the bench panicked")?;
                let first = failures.map_or(now, |(first, _)| first);
                *failures = Some((first, now));
            }
        }
    })
}
