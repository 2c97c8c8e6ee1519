use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::sync::Arc;

use super::{Config, PluginName, PluginSpec};

/// The plugins of one config beside those of another, in one walk through both.
pub(crate) struct Beside<'a>(Peekable<btree_map::Iter<'a, PluginName, PluginSpec>>);

impl<'a> Beside<'a> {
    pub(crate) fn new(plugins: &'a BTreeMap<PluginName, PluginSpec>) -> Self {
        Self(plugins.iter().peekable())
    }

    /// The plugin `name`. Names are to be asked for in their order, each of them once or more.
    pub(crate) fn get(&mut self, name: &PluginName) -> Option<&'a PluginSpec> {
        loop {
            let (other, spec) = *self.0.peek()?;
            // One that is in common needs no look.
            let order = if Arc::ptr_eq(&other.0, &name.0) {
                Ordering::Equal
            } else {
                other.cmp(name)
            };
            match order {
                Ordering::Less => drop(self.0.next()),
                Ordering::Equal => return Some(spec),
                Ordering::Greater => return None,
            }
        }
    }
}

impl Config {
    /// Has what is equal in `other` in common with it.
    pub(crate) fn share(&mut self, other: &Self) {
        let maps = [
            (&mut self.plugins, &other.plugins),
            (&mut self.disabled, &other.disabled),
        ];
        for (own, other) in maps {
            let mut beside = Beside::new(other);
            for (name, own) in own {
                let Some(other) = beside.get(name) else {
                    continue;
                };
                if own.policy == other.policy {
                    own.policy.clone_from(&other.policy);
                }
                if own.upstream == other.upstream {
                    own.upstream.clone_from(&other.upstream);
                }
            }
        }
    }
}
