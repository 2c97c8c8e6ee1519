//! Rounds in which the variants of a group take turns.

use std::path::Path;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::groups::Group;
use crate::report::Row;
use crate::{Result, callgrind};

/// Something to measure.
pub(crate) struct Variant {
    pub(crate) name: String,
    /// The variant that this one is compared with.
    pub(crate) floor: Option<&'static str>,
    pub(crate) calls: Calls,
    /// Sets it up and gives what is run, again and again.
    pub(crate) make: Box<dyn Fn() -> Result<Run>>,
}

/// How many calls a round makes, and what can be counted of them.
#[derive(Clone, Copy)]
pub(crate) enum Calls {
    /// As many as fill a round; this many under callgrind.
    Counted(u64),
    /// This many by each of several threads: short rounds are not calls at once, but threads that
    /// start one after another.
    Shared(u64),
    /// This many, each of them long.
    Few(u64),
}

/// Makes so many calls; `None` if something else got in the way, so that the time says nothing.
pub(crate) type Run = Box<dyn FnMut(u64) -> Result<Option<Sample>>>;

/// What so many calls took together.
pub(crate) struct Sample {
    pub(crate) time: Duration,
    /// Shares of it that stand as variants of their own.
    pub(crate) parts: Vec<(&'static str, Duration)>,
}

#[derive(Clone, Copy)]
pub(crate) struct Effort {
    rounds: usize,
    round: Duration,
    count_instructions: bool,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        rounds: 15,
        round: Duration::from_millis(30),
        count_instructions: true,
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 2,
        round: Duration::from_millis(1),
        count_instructions: false,
    };

    /// How long to wait for rounds that say something: on a busy machine many do not.
    const fn patience(self) -> Duration {
        self.round.saturating_mul(1000)
    }
}

impl Variant {
    pub(crate) fn new(
        name: impl Into<String>,
        floor: &'static str,
        calls: Calls,
        make: impl Fn() -> Result<Run> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            floor: Some(floor),
            calls,
            make: Box::new(make),
        }
    }

    pub(crate) fn without_floor(self) -> Self {
        Self {
            floor: None,
            ..self
        }
    }
}

impl From<Duration> for Sample {
    fn from(time: Duration) -> Self {
        Self {
            time,
            parts: Vec::new(),
        }
    }
}

/// The CPU time that this thread has used.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (time.tv_sec.try_into(), time.tv_nsec.try_into());
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

pub(crate) fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Makes calls one after another on `runtime`, which is this thread's.
pub(crate) fn in_turn(runtime: Runtime, mut call: impl AsyncFnMut() -> Result + 'static) -> Run {
    Box::new(move |calls| {
        let begun = thread_cpu();
        runtime.block_on(async {
            for _ in 0..calls {
                call().await?;
            }
            Ok::<_, crate::BoxError>(())
        })?;
        Ok(Some((thread_cpu() - begun).into()))
    })
}

/// Does `work` without counting its allocations, which takes time.
pub(crate) fn uncounted<T>(work: impl FnOnce() -> T) -> Result<T> {
    let mut done = None;
    allocation_counter::opt_out(|| done = Some(work()));
    done.ok_or_else(|| "the work was not done".into())
}

/// Measures all variants of `group`, on a thread of its own.
pub(crate) fn measure(group: &Group, effort: Effort, profile: Option<&Path>) -> Result<Vec<Row>> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| measure_here(group, effort, profile));
        thread.join().map_err(|_| "the measuring thread panicked")?
    })
}

fn measure_here(group: &Group, effort: Effort, profile: Option<&Path>) -> Result<Vec<Row>> {
    if let Some(prepare) = group.prepare {
        prepare();
    }
    let variants = group.variants();
    let mut measured = Vec::new();
    for variant in &variants {
        let mut one = Measured::new(variant)?;
        one.calibrate(effort.round)?;
        measured.push(one);
    }
    let begun = Instant::now();
    for turn in 0.. {
        let mut open: Vec<_> = measured
            .iter_mut()
            .filter(|one| one.whole().len() < effort.rounds)
            .collect();
        if open.is_empty() || (turn >= effort.rounds && begun.elapsed() > effort.patience()) {
            break;
        }
        // Nobody is always the one after somebody else.
        let first = turn % open.len();
        open.rotate_left(first);
        for one in open {
            one.round()?;
        }
    }
    let mut rows = Vec::new();
    for mut one in measured {
        let allocations = one.allocations()?;
        let instructions = match one.variant.calls {
            Calls::Counted(calls) if effort.count_instructions => {
                callgrind::instructions(group.name, &one.variant.name, calls, profile)?
            }
            _ => None,
        };
        rows.extend(one.rows(group.name, instructions, allocations));
    }
    crate::report::compare(&mut rows);
    Ok(rows)
}

/// A variant while it is measured.
struct Measured<'a> {
    variant: &'a Variant,
    run: Run,
    calls: u64,
    /// Nanoseconds a call, round by round: of the whole first, then of its parts.
    rounds: Vec<(&'static str, Vec<f64>)>,
}

impl<'a> Measured<'a> {
    fn new(variant: &'a Variant) -> Result<Self> {
        let calls = match variant.calls {
            Calls::Counted(_) => 1,
            Calls::Shared(calls) | Calls::Few(calls) => calls,
        };
        Ok(Self {
            variant,
            run: (variant.make)()?,
            calls,
            rounds: vec![("", Vec::new())],
        })
    }

    fn whole(&self) -> &[f64] {
        &self.rounds[0].1
    }

    /// Warms up, and finds how many calls fill a round.
    fn calibrate(&mut self, round: Duration) -> Result {
        let Calls::Counted(_) = self.variant.calls else {
            return Ok(());
        };
        for _ in 0..100 {
            match uncounted(|| (self.run)(self.calls))?? {
                Some(sample) if sample.time * 2 >= round => break,
                Some(_) => self.calls *= 2,
                None => {}
            }
        }
        Ok(())
    }

    fn round(&mut self) -> Result {
        let Some(sample) = uncounted(|| (self.run)(self.calls))?? else {
            return Ok(());
        };
        let whole = std::iter::once(("", sample.time));
        for (part, time) in whole.chain(sample.parts) {
            let nanos = time.as_secs_f64() * 1e9 / as_float(self.calls);
            match self.rounds.iter_mut().find(|(name, _)| *name == part) {
                Some((_, rounds)) => rounds.push(nanos),
                None => self.rounds.push((part, vec![nanos])),
            }
        }
        Ok(())
    }

    fn allocations(&mut self) -> Result<Option<f64>> {
        let Calls::Counted(calls) = self.variant.calls else {
            return Ok(None);
        };
        let mut outcome = Ok(None);
        let info = allocation_counter::measure(|| outcome = (self.run)(calls));
        outcome?;
        Ok(Some(as_float(info.count_total) / as_float(calls)))
    }

    fn rows(
        self,
        group: &'static str,
        instructions: Option<f64>,
        allocations: Option<f64>,
    ) -> impl Iterator<Item = Row> {
        let (name, floor) = (self.variant.name.clone(), self.variant.floor);
        self.rounds.into_iter().map(move |(part, mut rounds)| {
            rounds.sort_by(f64::total_cmp);
            let (variant, floor) = match part {
                "" => (name.clone(), floor),
                part => (format!("{name}-{part}"), None),
            };
            let whole = part.is_empty();
            Row {
                group,
                variant,
                floor,
                median_ns: median(&rounds),
                min_ns: rounds.first().copied(),
                ratio: None,
                instructions: instructions.filter(|_| whole),
                ratio_instructions: None,
                allocations: allocations.filter(|_| whole),
                rounds: rounds.len(),
            }
        })
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    Some(f64::midpoint(sorted[sorted.len() / 2 - 1], *upper))
}

#[expect(clippy::cast_precision_loss, reason = "counts of calls are small")]
pub(crate) const fn as_float(count: u64) -> f64 {
    count as f64
}

/// Keeps this thread, and those that it starts, on one CPU, if the machine has it.
pub(crate) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    // On a machine with one CPU there is nothing to choose.
    let _ = sched_setaffinity(None, &set);
}
