//! How the new does beside the old.

use std::sync::Arc;

use tokio::time::Instant;

use super::judge::{Judge, Margins, Verdict};
use super::options::Settings;
use crate::config::{ReloadSpec, Strategy};
use crate::node::{Node, Tally};

/// An old node and the new one in its place.
pub(super) struct Watched {
    pub(super) old: Arc<Node>,
    new: Arc<Node>,
    judge: Judge,
    before: Before,
    begun: Instant,
}

/// What the new is measured by.
enum Before {
    /// What the old did until it was replaced.
    Then(Tally),
    /// What the old does at the same time, since this.
    Now(Tally),
}

impl Watched {
    pub(super) fn new(old: Arc<Node>, new: Arc<Node>, settings: &Settings) -> Self {
        let spec = &settings.spec;
        let tally = |tally: Option<Tally>| tally.unwrap_or_else(Tally::new);
        let before = if spec.strategy == Strategy::Canary {
            Before::Now(tally(old.tally()))
        } else {
            Before::Then(tally(old.recent()))
        };
        Self {
            judge: Judge::new(margins(spec)),
            before,
            begun: Instant::now(),
            old,
            new,
        }
    }

    fn calls(&self) -> Tally {
        self.new.tally().unwrap_or_else(Tally::new)
    }

    /// What is worse, if something is.
    pub(super) fn look(&mut self, now: Instant) -> Option<String> {
        let new = self.calls();
        let beside: Tally;
        let old = match &self.before {
            Before::Then(tally) => tally,
            Before::Now(before) => {
                beside = self.old.tally().unwrap_or_else(Tally::new).since(before);
                &beside
            }
        };
        let worse = self.judge.look(old, &new, now - self.begun)?;
        Some(format!("{} {worse}", self.new.spec().name))
    }

    /// Whether there were enough calls to tell, of which `min` are wanted if that is anything.
    pub(super) fn is_judged(&self, min: u64) -> bool {
        let enough = (min > 0).then_some(min);
        self.judge.verdict(&self.calls(), enough) == Verdict::Fine
    }

    /// What its health alone says against the new one.
    pub(super) fn is_out(&self) -> Option<String> {
        let health = self.new.health().status;
        let name = &self.new.spec().name;
        health
            .is_out()
            .then(|| format!("{name} is {}", health.as_str()))
    }
}

fn margins(spec: &ReloadSpec) -> Margins {
    Margins {
        failures: spec.max_failure_increase.get(),
        latency: spec.max_latency_factor.get(),
        min_calls: spec.min_calls.into(),
        ..Margins::default()
    }
}
