use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

use super::{Config, PluginName, PluginSpec};

/// The plugins of one config beside those of another, in one walk through both.
pub(crate) struct Beside<'a>(Peekable<btree_map::Iter<'a, PluginName, PluginSpec>>);

impl<'a> Beside<'a> {
    pub(crate) fn new(plugins: &'a BTreeMap<PluginName, PluginSpec>) -> Self {
        Self(plugins.iter().peekable())
    }

    /// The plugin `name`. Names are to be asked for in their order.
    pub(crate) fn get(&mut self, name: &PluginName) -> Option<&'a PluginSpec> {
        while self.0.next_if(|(other, _)| *other < name).is_some() {}
        let (_, spec) = self.0.next_if(|(other, _)| *other == name)?;
        Some(spec)
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
