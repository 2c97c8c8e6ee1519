//! What served before, to go back to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::overlay::Wanted;
use crate::config::Config;
use crate::graph::{Generation, Plan};

/// A generation that served.
///
/// Its config is whole: what is secret in it is shown as such, and never as its value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// Its number.
    pub generation: Generation,
    /// When it was published.
    pub at: SystemTime,
    /// What it changed.
    pub plan: Arc<Plan>,
    /// What it ran.
    pub config: Arc<Config>,
    /// Why it was taken back, if it was.
    pub rolled_back: Option<String>,
    pub(super) wanted: Arc<Wanted>,
    /// The last generation in which it served again, since another was taken back.
    pub(super) again: Option<Generation>,
}

/// The last generations, the newest last.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<HistoryEntry>>);

impl History {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<HistoryEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `entry`, and as many before it that there are `max` at the most: what serves is always there, however many
    /// were taken back.
    pub(super) fn add(&self, entry: HistoryEntry, max: usize) {
        let mut entries = self.lock();
        entries.push_back(entry);
        while entries.len() > max.max(1) {
            let serves = entries
                .iter()
                .rposition(|entry| entry.rolled_back.is_none());
            entries.remove(usize::from(serves == Some(0)));
        }
    }

    /// What served last, and was not taken back, serves again as `generation`.
    pub(super) fn serves_again(&self, generation: Generation) {
        let mut entries = self.lock();
        let served = entries.iter_mut().rev();
        let mut served = served.filter(|entry| entry.rolled_back.is_none());
        if let Some(entry) = served.next() {
            entry.again = Some(generation);
        }
    }

    pub(super) fn find(&self, generation: Generation) -> Option<Arc<Wanted>> {
        let entries = self.lock();
        let is_it = |entry: &&HistoryEntry| {
            entry.generation == generation || entry.again == Some(generation)
        };
        let found = entries.iter().find(is_it);
        found.map(|entry| Arc::clone(&entry.wanted))
    }

    pub(super) fn all(&self) -> Vec<HistoryEntry> {
        self.lock().iter().cloned().collect()
    }
}
