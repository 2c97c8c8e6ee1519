//! One plugin, called from two threads at once.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use tower_plugins::Plugin;
use tower_service::Service;

use super::{Group, full};
use crate::Result;
use crate::harness::{Calls, Run, Sample, Variant, runtime, thread_cpu, uncounted};

pub(super) const GROUP: Group = Group {
    name: "contention",
    about: "One plugin called from one thread or two at once: thread CPU time a call, out of rounds in which all threads ran all the time.",
    variants,
    prepare: None,
};

const FLOOR: &str = "full-1-thread";

/// The share of the time for which a thread must have run, and for which the threads must have run
/// at once. Threads that take turns do not contend.
const ALL_THE_TIME: f64 = 0.93;

fn variants() -> Vec<Variant> {
    vec![
        Variant::new(FLOOR, FLOOR, Calls::Shared, || threads(1)),
        Variant::new("full-2-threads", FLOOR, Calls::Shared, || threads(2)),
    ]
}

fn threads(count: usize) -> Result<Run> {
    let home = runtime()?;
    let plugins = home.block_on(full::in_process(full::ARMED, 3))?;
    Ok(Box::new(move |calls| {
        let _alive = &home;
        let start = Barrier::new(count);
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..count)
                .map(|_| scope.spawn(|| one(plugins.plugin("full"), calls, &start)))
                .collect();
            threads
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        let mut times = Vec::new();
        for result in results {
            times.push(result.map_err(|_| "a calling thread panicked")??);
        }
        Ok(clean(&times))
    }))
}

struct Times {
    cpu: Duration,
    wall: Duration,
}

fn one(mut plugin: Plugin, calls: u64, start: &Barrier) -> Result<Times> {
    let runtime = runtime()?;
    uncounted(|| {
        start.wait();
        let (wall, cpu) = (Instant::now(), thread_cpu());
        runtime.block_on(async {
            for _ in 0..calls {
                full::drain(plugin.call(full::request()).await?).await?;
            }
            Ok::<_, crate::BoxError>(())
        })?;
        Ok(Times {
            cpu: thread_cpu() - cpu,
            wall: wall.elapsed(),
        })
    })?
}

/// The mean of the threads' times, if they ran at once.
fn clean(times: &[Times]) -> Option<Sample> {
    let ran = |times: &Times| times.cpu.as_secs_f64() / times.wall.as_secs_f64();
    let shortest = times.iter().map(|times| times.wall).min()?;
    let longest = times.iter().map(|times| times.wall).max()?;
    let overlap = shortest.as_secs_f64() / longest.as_secs_f64();
    if overlap < ALL_THE_TIME || times.iter().any(|times| ran(times) < ALL_THE_TIME) {
        return None;
    }
    let total: Duration = times.iter().map(|times| times.cpu).sum();
    Some((total / u32::try_from(times.len()).ok()?).into())
}
