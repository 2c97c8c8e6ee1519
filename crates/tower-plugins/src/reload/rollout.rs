//! A change on its way: what is built for it, and the steps in which that is published.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::options::Settings;
use super::overlay::Wanted;
use super::watching::Watched;
use super::{ReloadTimes, Reply, Verdict};
use crate::config::{Config, PluginName, PluginSpec, Strategy};
use crate::graph::{Built, Change, Entries, Entry, Gate, Graph, Held, Plan, Split, exchange};
use crate::node::Node;

/// Why a new node has to be ready under a strategy that asks for it, and what to do.
pub(super) const NOT_READY: &str =
    "reload.health_check_timeout: start it, or reload by another strategy";

/// A change on its way.
pub(super) struct Rollout {
    pub(super) settings: Settings,
    /// Whether it is of a whole config, and not of one plugin.
    pub(super) is_whole: bool,
    pub(super) is_of_file: bool,
    pub(super) wanted: Wanted,
    pub(super) config: Arc<Config>,
    pub(super) plan: Arc<Plan>,
    /// What served before, but for plugins that cannot run twice once they were asked to end.
    pub(super) old: Arc<Graph>,
    pub(super) built: Built,
    pub(super) steps: VecDeque<Step>,
    /// Whether some of it serves.
    pub(super) published: bool,
    /// Plugins that cannot run twice, to be exchanged with the last step.
    pub(super) exclusive: Vec<PluginSpec>,
    /// What holds their calls.
    pub(super) gate: Option<Arc<Gate>>,
    /// The old and the new of what is judged.
    pub(super) watched: Vec<Watched>,
    pub(super) unjudged: bool,
    /// It was found worse on the way, and goes on.
    pub(super) worse: Option<Verdict>,
    /// How long the whole is watched.
    pub(super) last_watch: Option<Watch>,
    pub(super) ended: Vec<PluginName>,
    pub(super) times: ReloadTimes,
    pub(super) reply: Reply,
}

/// What is published next.
#[derive(Debug)]
pub(super) struct Step {
    /// Who has to be ready before, and until when.
    pub(super) ready: Vec<Wait>,
    pub(super) publish: Publish,
    /// How long it is watched.
    pub(super) watch: Option<Watch>,
}

/// A node that has to be ready.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) node: Arc<Node>,
    pub(super) limit: Duration,
    /// Where that stands, and what to do.
    pub(super) why: &'static str,
}

#[derive(Clone, Debug)]
pub(super) enum Publish {
    /// The new nodes get a share of their plugins' calls.
    Share(f64),
    /// These plugins have their new nodes.
    Plugins(BTreeSet<PluginName>),
    All,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) at_least: Duration,
    /// Longer, as long as there were fewer calls than wanted.
    pub(super) at_most: Duration,
    pub(super) min_calls: u64,
}

impl Rollout {
    /// What `publish` makes of what served before.
    pub(super) fn entries(&self, publish: &Publish) -> Entries {
        let mut entries = self.old.entries().clone();
        let built = |name: &PluginName| Some(Entry::Node(Arc::clone(self.built.get(name)?)));
        match publish {
            Publish::All => exchange(&mut entries, &self.plan, &self.built),
            Publish::Plugins(names) => {
                let names = names.iter();
                entries.extend(names.filter_map(|name| Some((name.clone(), built(name)?))));
            }
            Publish::Share(share) => {
                for (name, new) in &self.built {
                    let old = entries.get(name).and_then(Entry::node);
                    let entry = match old {
                        None => Entry::Node(Arc::clone(new)),
                        Some(old) => Entry::Split(Arc::new(Split {
                            old: Arc::clone(old),
                            new: Arc::clone(new),
                            share: *share,
                            stick_to: self.settings.spec.stick_to.clone(),
                        })),
                    };
                    entries.insert(name.clone(), entry);
                }
            }
        }
        entries
    }

    /// The nodes of `graph` as they are while the exclusive ones are exchanged.
    pub(super) fn held(&self, graph: &Graph, gate: &Arc<Gate>) -> Entries {
        let mut entries = graph.entries().clone();
        for spec in &self.exclusive {
            let held = Held::new(gate, &spec.policy);
            entries.insert(spec.name.clone(), Entry::Held(held.into()));
        }
        entries
    }

    /// What is known of it at its end.
    pub(super) fn verdict(&mut self) -> Verdict {
        match self.worse.take() {
            Some(worse) => worse,
            None if self.watched.is_empty() => Verdict::Unwatched,
            None if self.unjudged => Verdict::Unjudged,
            None => Verdict::Fine,
        }
    }

    /// Has what `publish` lets serve whole do as its spec says, with what it shares.
    pub(super) fn take_effect(&self, publish: &Publish) {
        for (name, node) in &self.built {
            let serves = match publish {
                Publish::All => true,
                Publish::Plugins(names) => names.contains(name),
                Publish::Share(_) => false,
            };
            if serves {
                node.take_effect();
            }
        }
    }

    /// Begins to watch each node that takes the place of another.
    pub(super) fn watch(&mut self) {
        if self.watched.is_empty() {
            let (old, settings) = (&self.old, &self.settings);
            let pairs = self.built.iter().filter_map(|(name, new)| {
                let old = old.node(name.as_str())?;
                Some(Watched::new(Arc::clone(old), Arc::clone(new), settings))
            });
            self.watched = pairs.collect();
        }
    }
}

/// In which steps `built` is published.
pub(super) fn steps(
    settings: &Settings,
    plan: &Plan,
    old: &Graph,
    built: &Built,
) -> VecDeque<Step> {
    let spec = &settings.spec;
    let within = |node: &Arc<Node>| Wait {
        node: Arc::clone(node),
        limit: spec.health_check_timeout,
        why: NOT_READY,
    };
    let ready = || built.values().map(within).collect::<Vec<_>>();
    let observe = (!spec.observe_for.is_zero()).then_some(Watch {
        at_least: spec.observe_for,
        at_most: spec.observe_for,
        min_calls: 0,
    });
    let all = |ready, watch| Step {
        ready,
        publish: Publish::All,
        watch,
    };
    match spec.strategy {
        Strategy::BlueGreen => [all(ready(), observe)].into(),
        // There is nothing to share with.
        Strategy::Canary if !built.keys().any(|name| old.entry(name.as_str()).is_some()) => {
            [all(ready(), None)].into()
        }
        Strategy::Canary => {
            let share = |percent: &u32| Step {
                ready: Vec::new(),
                publish: Publish::Share(f64::from(*percent) / 100.0),
                watch: Some(Watch {
                    at_least: spec.canary_step_time,
                    at_most: spec.canary_step_time.max(spec.observe_for),
                    min_calls: spec.canary_min_calls.into(),
                }),
            };
            let shares = spec.canary_steps.iter().map(share);
            let mut steps: VecDeque<_> = shares.chain([all(Vec::new(), observe)]).collect();
            if let Some(first) = steps.front_mut() {
                first.ready = ready();
            }
            steps
        }
        Strategy::Rolling => {
            let mut names = BTreeSet::new();
            let mut steps = VecDeque::new();
            let mut nodes: Vec<_> = built.iter().collect();
            // What is replaced may send calls to what is new.
            nodes.sort_by_key(|(name, _)| old.entry(name.as_str()).is_some());
            for some in nodes.chunks(spec.max_concurrent_reloads.max(1) as usize) {
                names.extend(some.iter().map(|(name, _)| PluginName::clone(name)));
                steps.push_back(Step {
                    ready: some.iter().map(|(_, node)| within(node)).collect(),
                    publish: Publish::Plugins(names.clone()),
                    watch: None,
                });
            }
            steps.push_back(all(Vec::new(), None));
            steps
        }
        // A plugin that is only restacked serves already.
        _ => {
            let is_made = |name: &PluginName| {
                let change = plan.changes().get(name);
                matches!(change, Some(Change::Replace { .. } | Change::Add { .. }))
            };
            let made = built.iter().filter(|(name, _)| is_made(name));
            let wanted = made.filter_map(|(_, node)| wanted(node));
            [all(wanted.collect(), None)].into()
        }
    }
}

/// What `node`'s own spec has it wait for.
pub(super) fn wanted(node: &Arc<Node>) -> Option<Wait> {
    Some(Wait {
        node: Arc::clone(node),
        limit: node.spec().policy.ready_within?,
        why: "its start_timeout: start it, or write start: lazy",
    })
}

/// How long since `begun`, and that it was now.
pub(super) fn lap(begun: &mut Instant) -> Duration {
    let now = Instant::now();
    let lap = now - *begun;
    *begun = now;
    lap
}
