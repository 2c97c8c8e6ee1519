//! How the new does beside the old.

use std::sync::Arc;

use super::judge::{Judge, Margins};
use super::options::Settings;
use crate::node::{Node, Tally};
use tokio::time::Instant;

/// An old node and the new one in its place.
pub(super) struct Watched {
    old: Arc<Node>,
    pub(super) new: Arc<Node>,
    judge: Judge,
    before: Before,
    begun: Instant,
}

/// What the new is measured by.
enum Before {
    /// What the old did until it was replaced.
    Then(Option<Tally>),
    /// What the old does at the same time, since this.
    Now(Option<Tally>),
}

impl Watched {
    pub(super) fn new(old: Arc<Node>, new: Arc<Node>, settings: &Settings) -> Self {
        let spec = &settings.spec;
        let before = if spec.strategy == crate::config::Strategy::Canary {
            Before::Now(old.tally())
        } else {
            Before::Then(old.recent())
        };
        Self {
            judge: Judge::new(Margins::of(spec)),
            before,
            begun: Instant::now(),
            old,
            new,
        }
    }

    /// What is worse, if something is.
    pub(super) fn look(&mut self, now: Instant) -> Option<String> {
        let new = self.new.tally()?;
        let old = match &self.before {
            Before::Then(tally) => tally.clone(),
            Before::Now(before) => match (self.old.tally(), before) {
                (Some(now), Some(before)) => Some(now.since(before)),
                (now, _) => now,
            },
        };
        let old = old.unwrap_or_default();
        let worse = self.judge.look(&old, &new, now - self.begun)?;
        Some(format!("{} {worse}", self.new.spec().name))
    }

    /// Calls that ended on the new one.
    pub(super) fn calls(&self) -> u64 {
        self.new.tally().map_or(0, |tally| tally.calls)
    }

    /// Whether its health alone speaks against the new one.
    pub(super) fn is_out(&self) -> Option<String> {
        let health = self.new.health().status;
        health
            .is_out()
            .then(|| format!("{} is {}", self.new.spec().name, health.as_str()))
    }

    pub(super) fn old(&self) -> &Arc<Node> {
        &self.old
    }
}
