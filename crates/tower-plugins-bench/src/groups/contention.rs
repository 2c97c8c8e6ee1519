//! One plugin, called from two threads at once.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use tower_plugins::Plugin;
use tower_service::Service;

use super::{Group, full};
use crate::Result;
use crate::harness::{Calls, Run, Sample, Variant, pin, runtime, thread_cpu, uncounted};

pub(super) const GROUP: Group = Group {
    name: "contention",
    about: "One plugin called from one thread or two at once: thread CPU time a call, out of rounds in which all threads ran all the time.",
    variants,
    prepare: None,
    summary: None,
};

/// Enough for some 15 ms.
const CALLS: Calls = Calls::Shared(8000);

const FLOOR: &str = "full-1-thread";

/// The share of a round for which each thread must have run. Threads that take turns do not contend.
const ALL_THE_TIME: f64 = 0.9;

fn variants() -> Vec<Variant> {
    vec![
        Variant::new(FLOOR, FLOOR, CALLS, || threads(1)),
        Variant::new("full-2-threads", FLOOR, CALLS, || threads(2)),
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
                .map(|cpu| {
                    let (plugin, start) = (plugins.plugin("full"), &start);
                    scope.spawn(move || one(plugin, calls, cpu, start))
                })
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
    begun: Instant,
    ended: Instant,
}

fn one(mut plugin: Plugin, calls: u64, cpu: usize, start: &Barrier) -> Result<Times> {
    pin(cpu);
    let runtime = runtime()?;
    uncounted(|| {
        start.wait();
        let (begun, cpu) = (Instant::now(), thread_cpu());
        runtime.block_on(async {
            for _ in 0..calls {
                full::drain(plugin.call(full::request()).await?).await?;
            }
            Ok::<_, crate::BoxError>(())
        })?;
        Ok(Times {
            cpu: thread_cpu() - cpu,
            begun,
            ended: Instant::now(),
        })
    })?
}

/// The mean of the threads' times, if they ran at once.
fn clean(times: &[Times]) -> Option<Sample> {
    let first = times.iter().map(|times| times.begun).min()?;
    let last = times.iter().map(|times| times.ended).max()?;
    // Of the time from the first to begin to the last to end, each thread ran nearly all.
    let all = (last - first).as_secs_f64();
    let ran = |times: &Times| times.cpu.as_secs_f64() / all;
    if times.iter().any(|times| ran(times) < ALL_THE_TIME) {
        return None;
    }
    let total: Duration = times.iter().map(|times| times.cpu).sum();
    Some((total / u32::try_from(times.len()).ok()?).into())
}
