//! Whatever is asked of a set, and whatever fails meanwhile: it ends as a whole config, that of a naive model.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower_plugins::config::{Config, PluginName, PluginSpec};
use tower_plugins::reload::{
    OverlayKind, Reload, ReloadOptions, ReloadPhase, ReloadReport, Strategy as By,
};
use tower_plugins::{Error, Generation, Plugins, Reason};

use self::naive::{File, Naive, Spec};
use self::toy::{Fault, World};
use super::support::{MS, SECOND, who};
use crate::support::{causes, config};

mod naive;
mod toy;

/// Of which `x` cannot run twice.
const NAMES: [&str; 4] = ["a", "b", "c", "x"];

#[derive(Clone, Debug)]
enum Op {
    Reload(File),
    Update(&'static str, Spec),
    Remove(&'static str),
    Enable(&'static str),
    Disable(&'static str),
    Clear(&'static str),
    /// To one of the generations that there are.
    Rollback(prop::sample::Index),
    Drain(&'static str),
    DryRun(File),
}

#[derive(Clone, Debug)]
struct Act {
    /// After the one before.
    after: Duration,
    op: Op,
    by: By,
    /// Its caller goes away.
    abandoned: bool,
}

/// What is asked at once or one after the other, and what fails before and while it is done.
#[derive(Clone, Debug)]
struct Batch {
    acts: Vec<Act>,
    before: BTreeMap<u8, Fault>,
    meanwhile: BTreeMap<u8, Fault>,
    after: Duration,
}

fn spec() -> impl Strategy<Value = Spec> {
    (0..3_u8, 1..4_u8).prop_map(|(endpoint, drain)| Spec { endpoint, drain })
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&NAMES[..])
}

fn file() -> impl Strategy<Value = File> {
    btree_map(name(), (spec(), prop::bool::weighted(0.8)), 1..=4)
}

fn act() -> impl Strategy<Value = Act> {
    let op = prop_oneof![
        6 => file().prop_map(Op::Reload),
        3 => (name(), spec()).prop_map(|(name, spec)| Op::Update(name, spec)),
        1 => name().prop_map(Op::Remove),
        1 => name().prop_map(Op::Enable),
        1 => name().prop_map(Op::Disable),
        1 => name().prop_map(Op::Clear),
        1 => any::<prop::sample::Index>().prop_map(Op::Rollback),
        1 => name().prop_map(Op::Drain),
        1 => file().prop_map(Op::DryRun),
    ];
    let by = prop::sample::select(vec![
        By::Graceful,
        By::Immediate,
        By::BlueGreen,
        By::Canary,
        By::Rolling,
    ]);
    let abandoned = prop::bool::weighted(0.15);
    let after = prop_oneof![Just(0), 0..400_u64].prop_map(Duration::from_millis);
    (after, op, by, abandoned).prop_map(|(after, op, by, abandoned)| Act {
        after,
        op,
        by,
        abandoned,
    })
}

fn batch() -> impl Strategy<Value = Batch> {
    let fault = prop::sample::select(vec![
        Fault::Unmade,
        Fault::Unready,
        Fault::Failing,
        Fault::Panicking,
        Fault::Silent,
        Fault::Gone,
    ]);
    let faults = || btree_map(0..3_u8, fault.clone(), 0..=2);
    (vec(act(), 1..4), faults(), faults(), 0..2_000_u64).prop_map(
        |(acts, before, meanwhile, after)| Batch {
            acts,
            before,
            meanwhile,
            after: Duration::from_millis(after),
        },
    )
}

/// The config that says `file`, under which reloads do not take long.
fn written(file: &File) -> Config {
    let plugins = file
        .iter()
        .map(|(name, (spec, on))| format!("  {name}: {{ {}, enabled: {on} }}\n", spec.keys(name)));
    let plugins: String = plugins.collect();
    let plugins = if plugins.is_empty() {
        " {}".to_owned()
    } else {
        format!("\n{plugins}")
    };
    config(&format!(
        "
allow_empty: true
reload:
  health_check_timeout: 500ms
  observe_for: 1s
  canary_steps: [20, 60]
  canary_step_time: 300ms
  canary_min_calls: 5
  max_concurrent_reloads: 1
  history: 1024
plugins:{plugins}"
    ))
}

fn written_one(name: &'static str, spec: Spec) -> PluginSpec {
    let file = File::from([(name, (spec, true))]);
    let mut plugins = written(&file).plugins;
    plugins.remove(name).unwrap()
}

/// A set, and what it may be.
struct Run {
    world: World,
    plugins: Plugins,
    /// More than one where nobody knows what came of a change.
    models: Vec<Naive>,
    /// What was wanted as generations.
    generations: BTreeMap<Generation, Vec<Naive>>,
}

type Ended = Option<Result<ReloadReport, Error>>;

impl Run {
    async fn start() -> Self {
        let world = World::default();
        let plugins = world.builder().start(written(&File::new())).await.unwrap();
        let model = Naive::default();
        Self {
            generations: BTreeMap::from([(plugins.status().generation, vec![model.clone()])]),
            models: vec![model],
            world,
            plugins,
        }
    }

    /// Asks for `act`, and gives what came of it if its caller has waited.
    fn ask(&self, act: &Act) -> JoinHandle<Ended> {
        let (plugins, act) = (self.plugins.clone(), act.clone());
        let generations: Vec<_> = self.generations.keys().copied().collect();
        tokio::spawn(async move {
            let change = match &act.op {
                Op::Reload(file) => plugins.reload(written(file)),
                Op::DryRun(file) => plugins.reload(written(file)).dry_run(),
                Op::Update(name, spec) => plugins.update(written_one(name, *spec)),
                Op::Remove(name) => plugins.remove(name),
                Op::Enable(name) => plugins.enable(name),
                Op::Disable(name) => plugins.disable(name),
                Op::Clear(name) => plugins.clear_overlay(name),
                Op::Rollback(to) => plugins.rollback(*to.get(&generations)),
                Op::Drain(name) => {
                    let drain = plugins.drain(name).timeout(100 * MS);
                    let _ = drain.cancel_after_timeout().await;
                    return None;
                }
            };
            let change: Reload<'_> = if matches!(act.op, Op::DryRun(_)) {
                change
            } else {
                change.options(ReloadOptions::new().strategy(act.by))
            };
            if act.abandoned {
                tokio::select! {
                    biased;
                    ended = change => Some(ended),
                    () = std::future::ready(()) => None,
                }
            } else {
                Some(change.await)
            }
        })
    }

    async fn run(&mut self, batch: &Batch) {
        self.world.fails(&batch.before);
        let load: Vec<_> = NAMES.map(|name| load(self.plugins.clone(), name)).into();
        // There is something to compare with.
        sleep(500 * MS).await;
        let known: Vec<_> = self.generations.keys().copied().collect();
        let mut asked = Vec::new();
        for act in &batch.acts {
            if !act.after.is_zero() {
                sleep(act.after).await;
            }
            asked.push(self.ask(act));
        }
        sleep(batch.after).await;
        self.world.fails(&batch.meanwhile);
        for (act, asked) in batch.acts.iter().zip(asked) {
            let ended = timeout(120 * SECOND, asked)
                .await
                .expect("it ends")
                .unwrap();
            self.take(act, &known, ended);
        }
        self.settle().await;
        for load in load {
            load.abort();
        }
        self.world.fails(&BTreeMap::new());
        self.check().await;
    }

    /// What `act` makes of what the set may be.
    fn take(&mut self, act: &Act, known: &[Generation], ended: Ended) {
        let edited = |model: &Naive| match &act.op {
            Op::Reload(file) => Ok(vec![model.reloaded(file)]),
            Op::Update(name, spec) => Ok(vec![model.updated(name, *spec)]),
            Op::Remove(name) => model.removed(name).map(|model| vec![model]),
            Op::Enable(name) => model.enabled(name).map(|model| vec![model]),
            Op::Disable(name) => model.disabled(name).map(|model| vec![model]),
            Op::Clear(name) => model.cleared(name).map(|model| vec![model]),
            Op::Rollback(to) => Ok(self.generations[to.get(known)].clone()),
            Op::Drain(_) | Op::DryRun(_) => Ok(vec![model.clone()]),
        };
        let models = self.models.iter();
        let after: Vec<_> = models
            .filter_map(|model| edited(model).ok())
            .flatten()
            .collect();
        match ended {
            None => self.models.extend(after),
            Some(Ok(report)) => {
                assert!(
                    !after.is_empty(),
                    "{act:?} was taken, and cannot be: {report}"
                );
                if !report.plan.is_empty() && !matches!(act.op, Op::DryRun(_)) {
                    self.generations.insert(report.generation, after.clone());
                }
                self.models = after;
            }
            Some(Err(error)) => {
                let is_known = error.is_config()
                    || error.is_superseded()
                    || error.is_rolled_back()
                    || error.is_frozen()
                    || error.is_not_found();
                assert!(is_known, "{act:?}: {}", causes(&error));
                if error.is_not_found() {
                    self.models.retain(|model| edited(model).is_err());
                    assert!(!self.models.is_empty(), "{act:?}: {}", causes(&error));
                }
            }
        }
    }

    /// Waits until all that was asked is done, by those as well who went away.
    async fn settle(&self) {
        let settled = async {
            self.plugins.clear_overlay("nobody").await.unwrap_err();
            let mut status = self.plugins.subscribe();
            let idle = status.wait_for(|status| status.phase == ReloadPhase::Idle);
            drop(idle.await.unwrap());
            let over = status.wait_for(|status| status.retiring == 0);
            drop(over.await.unwrap());
        };
        timeout(120 * SECOND, settled).await.expect("it settles");
    }

    async fn check(&mut self) {
        let history = self.plugins.history();
        let mut last = Config::new();
        for entry in &history {
            assert_eq!(
                entry.plan.apply(&last).plugins,
                entry.config.plugins,
                "{}",
                entry.plan
            );
            if entry.rolled_back.is_none() {
                last = (*entry.config).clone();
            }
        }
        let overlay = self.plugins.status().overlay;
        let is_so = |model: &Naive| {
            written(&model.running()).plugins == last.plugins && same(&model.overlay(), &overlay)
        };
        let before = std::mem::take(&mut self.models);
        self.models = before
            .iter()
            .filter(|model| is_so(model))
            .cloned()
            .collect();
        self.models.dedup();
        assert!(
            !self.models.is_empty(),
            "{last:?} and {overlay:?} are none of {before:#?}"
        );
        let running = self.models[0].running();
        let names = self.plugins.names();
        for name in running.keys() {
            // One that cannot run twice, and could not be started again.
            if !names.iter().any(|other| other == name) {
                assert_eq!(*name, "x");
                self.plugins.enable(name).await.unwrap();
            }
        }
        assert!(
            self.plugins.names().iter().eq(running.keys()),
            "{names:?}: {running:?}"
        );
        for (name, (spec, _)) in &running {
            let mut answer = who(&self.plugins, name).await;
            if let Err(error) = &answer
                && error.reason() == Some(Reason::Draining)
            {
                self.plugins.enable(name).await.unwrap();
                answer = who(&self.plugins, name).await;
            }
            assert_eq!(answer.unwrap(), format!("e{}", spec.endpoint), "{name}");
        }
        self.settle().await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.world.there(), running.len(), "no node is left");
        assert!(self.world.most_of_x() <= 1, "x ran twice");
    }
}

fn same(
    ours: &BTreeMap<&'static str, OverlayKind>,
    theirs: &BTreeMap<PluginName, OverlayKind>,
) -> bool {
    let theirs = theirs.iter().map(|(name, kind)| (name.as_str(), *kind));
    theirs.eq(ours.iter().map(|(name, kind)| (*name, *kind)))
}

/// Calls `name` fifty times a second.
fn load(plugins: Plugins, name: &'static str) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let plugins = plugins.clone();
            tokio::spawn(async move { drop(who(&plugins, name).await) });
            sleep(20 * MS).await;
        }
    })
}

fn runs(batches: &[Batch]) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut run = Run::start().await;
        for batch in batches {
            run.run(batch).await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_and_whatever_fails_it_ends_as_one_config_whole(batches in vec(batch(), 1..6)) {
        runs(&batches);
    }
}
