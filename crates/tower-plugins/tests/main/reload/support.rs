//! Services of which one is worse than another, and callers that count.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tower::{ServiceExt, service_fn};
use tower_plugins::config::Config;
use tower_plugins::{Body, Builder, Error, Plugin, Plugins};

use crate::support::{config, get};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The plugin `p`, answered by the service `service`, with more of the config before it.
pub(crate) fn p(reload: &str, service: &str) -> Config {
    config(&format!(
        "
        reload: {{ {reload} }}
        plugins:
          p: {{ transport: in-process, endpoint: {service}, circuit_breaker: off, retry: off }}
        "
    ))
}

/// A set that can have the services `good`, `better`, `bad`, which fails three calls of ten, `dead`, which fails all, and
/// `slow`.
pub(crate) fn services() -> Builder {
    let builder = Plugins::builder();
    [
        ("good", 0, 5 * MS),
        ("better", 0, 5 * MS),
        ("bad", 3, 5 * MS),
        ("dead", 10, 5 * MS),
        ("slow", 0, 50 * MS),
    ]
    .into_iter()
    .fold(builder, |builder, (name, fails, time)| {
        let count = Arc::new(AtomicU64::new(0));
        let service = service_fn(move |_: Request<Body>| {
            let n = count.fetch_add(1, SeqCst);
            async move {
                sleep(time).await;
                let status = if n % 10 < fails { 500 } else { 200 };
                let response = Response::builder().status(status).body(Body::from(name));
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        builder.service(name, service)
    })
}

/// What became of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) failures: u64,
}

/// Calls a plugin a thousand times a second, until it is asked how that went.
pub(crate) struct Load {
    calls: Arc<AtomicU64>,
    failures: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Load {
    pub(crate) fn on(plugin: Plugin) -> Self {
        Self::every(MS, plugin)
    }

    pub(crate) fn every(time: Duration, plugin: Plugin) -> Self {
        let (calls, failures) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (called, failed) = (Arc::clone(&calls), Arc::clone(&failures));
        let task = tokio::spawn(async move {
            let mut ticks = interval(time);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let (plugin, called, failed) = (plugin.clone(), called.clone(), failed.clone());
                tokio::spawn(async move {
                    let answer = plugin.oneshot(get("/")).await;
                    let is_well = match answer {
                        // A call is over when its body is.
                        Ok(answer) => {
                            let status = answer.status();
                            let body = answer.into_body().collect().await;
                            status.is_success() && body.is_ok()
                        }
                        Err(_) => false,
                    };
                    called.fetch_add(1, SeqCst);
                    failed.fetch_add(u64::from(!is_well), SeqCst);
                });
            }
        });
        Self {
            calls,
            failures,
            task,
        }
    }

    pub(crate) fn so_far(&self) -> Counts {
        Counts {
            calls: self.calls.load(SeqCst),
            failures: self.failures.load(SeqCst),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who answers calls of `plugin`, by its body.
pub(crate) async fn who(plugins: &Plugins, name: &str) -> Result<String, Error> {
    crate::support::text(&plugins.plugin(name), get("/")).await
}
