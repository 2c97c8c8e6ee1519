//! `split` and `shadow`: other plugins that have a part of the calls, or copies of them.

use std::time::Duration;

use super::super::Number;
use super::{KeySpec, PluginName, Policy};

/// `split`: a part of the calls goes to another plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SplitSpec {
    /// The other plugin.
    pub to: PluginName,
    /// How many of 100 calls go there.
    pub percent: Number,
    /// Where the key of a call is: calls with the same one go the same way. `None` is chance for each.
    pub hash_on: Option<KeySpec>,
}

/// `shadow`: another plugin gets copies of calls, and what it answers is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShadowSpec {
    /// The other plugin.
    pub to: PluginName,
    /// How many of 100 calls are copied.
    pub percent: Number,
    /// Whether only calls that may be repeated are copied.
    pub idempotent_only: bool,
    /// How many copies may be under way; calls beyond are not copied.
    pub max_concurrent: u32,
    /// How long a copy may take, to the end of its answer.
    pub timeout: Duration,
}

impl SplitSpec {
    /// So many of 100 calls go to `to`.
    #[must_use]
    pub const fn new(to: PluginName, percent: Number) -> Self {
        Self {
            to,
            percent,
            hash_on: None,
        }
    }
}

impl ShadowSpec {
    /// All calls to `to` that may be repeated are copied.
    #[must_use]
    pub fn new(to: PluginName) -> Self {
        Self {
            to,
            percent: Number::finite(100.0),
            idempotent_only: true,
            max_concurrent: 16,
            timeout: Duration::from_secs(30),
        }
    }
}

impl Policy {
    /// The other plugins that a plugin needs, each with the key that names it.
    pub(crate) fn others(&self) -> Vec<(&'static str, &PluginName)> {
        let split = self.split.as_ref().map(|split| ("split.to", &split.to));
        let shadow = self.shadow.as_ref();
        let shadow = shadow.map(|shadow| ("shadow.to", &shadow.to));
        split.into_iter().chain(shadow).collect()
    }
}
