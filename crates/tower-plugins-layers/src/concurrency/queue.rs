use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::Priority;

/// What becomes of one who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Place,
    Shed,
}

/// Those who wait, by their priority and then by their number, which grows.
#[derive(Debug, Default)]
pub(super) struct Queue {
    classes: [BTreeMap<u64, oneshot::Sender<Turn>>; Priority::ALL.len()],
    next: u64,
    len: usize,
}

impl Queue {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Whether somebody waits who is as important as `priority`, or more.
    pub(super) fn has(&self, priority: Priority) -> bool {
        self.classes[..=priority.class()]
            .iter()
            .any(|class| !class.is_empty())
    }

    pub(super) fn push(&mut self, priority: Priority) -> (u64, oneshot::Receiver<Turn>) {
        let (sender, receiver) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.len += 1;
        self.classes[priority.class()].insert(number, sender);
        (number, receiver)
    }

    /// Takes out one who leaves; false if it has had its turn already.
    pub(super) fn remove(&mut self, priority: Priority, number: u64) -> bool {
        let left = self.classes[priority.class()].remove(&number).is_some();
        self.len -= usize::from(left);
        left
    }

    /// The priority of the first in line.
    pub(super) fn first(&self) -> Option<Priority> {
        let first = |priority: &Priority| !self.classes[priority.class()].is_empty();
        Priority::ALL.into_iter().find(first)
    }

    /// Tells the first of `priority` that it has a place.
    pub(super) fn serve(&mut self, priority: Priority) {
        if let Some((_, sender)) = self.classes[priority.class()].pop_first() {
            self.len -= 1;
            // Whoever waits leaves under the lock, and looks for its turn when it does.
            let _ = sender.send(Turn::Place);
        }
    }

    /// Sends away the last of the least important, if it is less important than `priority`.
    pub(super) fn displace(&mut self, priority: Priority) -> bool {
        for class in self.classes[priority.class() + 1..].iter_mut().rev() {
            if let Some((_, sender)) = class.pop_last() {
                self.len -= 1;
                let _ = sender.send(Turn::Shed);
                return true;
            }
        }
        false
    }
}
