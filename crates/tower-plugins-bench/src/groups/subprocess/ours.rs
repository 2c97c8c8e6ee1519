//! Our host: a set of plugins with the one, and a client that tonic generated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_plugins::config::{Config, Format};
use tower_plugins::{Plugin, Plugins};
use tower_plugins_interop::peer::Number;
use tower_plugins_interop::peer::peer_client::PeerClient;

use super::{Measures, Program, What};
use crate::Result;
use crate::harness::Sample;

/// As many calls as are under way at once.
const IN_FLIGHT: usize = 16;

pub(super) struct OurHost {
    runtime: Runtime,
    config: Config,
    plugins: Plugins,
}

impl OurHost {
    pub(super) fn start(plugin: &Program, auto_mtls: bool) -> Result<Self> {
        let Program(executable, word) = plugin;
        let executable = executable.display();
        let text = format!(
            "
plugins:
  - name: peer
    transport: subprocess
    executable: '{executable}'
    args: [{word}]
    go_plugin: {{ auto_mtls: {auto_mtls} }}"
        );
        let config = Config::parse(&text, Format::Yaml)?;
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let plugins = runtime.block_on(Plugins::builder().start(config.clone()))?;
        Ok(Self {
            runtime,
            config,
            plugins,
        })
    }
}

impl Measures for OurHost {
    fn measure(&mut self, what: What, count: u64) -> Result<Sample> {
        let plugin = self.plugins.plugin("peer");
        // In a task, as in a program: the thread that blocks has no part in the runtime's work.
        let measured = match what {
            What::Spawn => self.runtime.spawn(spawn(self.config.clone(), count)),
            What::Call => self.runtime.spawn(median(plugin, count)),
            What::Flight => self.runtime.spawn(in_flight(plugin, count)),
        };
        Ok(self.runtime.block_on(measured)??.into())
    }
}

impl Drop for OurHost {
    fn drop(&mut self) {
        // A plugin that does not end is killed.
        let _ = self
            .runtime
            .block_on(self.plugins.shutdown(Duration::from_secs(5)));
    }
}

async fn double(client: &mut PeerClient<Plugin>) -> Result {
    let answer = client.double(Number { value: 21 }).await?;
    std::hint::black_box(answer.into_inner());
    Ok(())
}

/// From nothing to the first answer, one after the other.
async fn spawn(config: Config, count: u64) -> Result<Duration> {
    let mut took = Duration::ZERO;
    for _ in 0..count {
        let config = config.clone();
        let began = Instant::now();
        let plugins = Plugins::builder().start(config).await?;
        double(&mut PeerClient::new(plugins.plugin("peer"))).await?;
        took += began.elapsed();
        plugins.shutdown(Duration::from_secs(5)).await?;
    }
    Ok(took)
}

/// What so many calls one after the other would take at their median.
async fn median(plugin: Plugin, count: u64) -> Result<Duration> {
    let mut client = PeerClient::new(plugin);
    let mut each = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        double(&mut client).await?;
        each.push(began.elapsed());
    }
    each.sort_unstable();
    let median = each.get(each.len() / 2).ok_or("no call was made")?;
    Ok(median.saturating_mul(u32::try_from(count)?))
}

async fn in_flight(plugin: Plugin, count: u64) -> Result<Duration> {
    let begun = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for _ in 0..IN_FLIGHT {
        let (begun, mut client) = (Arc::clone(&begun), PeerClient::new(plugin.clone()));
        tasks.spawn(async move {
            while begun.fetch_add(1, Ordering::Relaxed) < count {
                double(&mut client).await?;
            }
            Ok::<_, crate::BoxError>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(began.elapsed())
}
