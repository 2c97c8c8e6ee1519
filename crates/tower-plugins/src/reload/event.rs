//! What happens to reloads, as it happens.

use std::sync::Arc;

use crate::config::PluginName;
use crate::error::Error;
use crate::graph::{Generation, Plan, Retired};

use super::Verdict;

/// What happens to a reload. [`Plugins::events`](crate::Plugins::events) has them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReloadEvent {
    /// It is known what is to be done.
    Planned(Arc<Plan>),
    /// What is new is being built.
    Building,
    /// It is waited for until these plugins are ready.
    Waiting(Vec<PluginName>),
    /// A graph serves.
    Published {
        /// Its number.
        generation: Generation,
        /// What part of the calls goes to the new nodes, from 0 to 1; less than 1 under canary alone.
        share: f64,
    },
    /// What was published is being watched.
    Watching(Generation),
    /// The watch has ended.
    Judged(Verdict),
    /// A node that left has so many calls under way: told at first, and each second.
    Draining {
        /// The plugin.
        plugin: PluginName,
        /// Calls under way.
        active: usize,
    },
    /// A node that left came to its end.
    Retired(Retired),
    /// A config was refused; what runs stays.
    Rejected(Arc<Error>),
    /// What was published served, was worse, and was taken back.
    RolledBack {
        /// The generation that serves again what served before.
        generation: Generation,
        /// What was worse.
        why: String,
    },
}
