//! `split` and `shadow`: other plugins that have a part of the calls, or copies of them.

use std::borrow::Cow;
use std::time::Duration;

use super::super::Number;
use super::{KeySpec, PluginName, Policy};

/// `split`: a part of the calls goes to another plugin, or to several.
///
/// ```
/// use tower_plugins::config::{Number, PluginName, SplitSpec};
///
/// # fn split() -> Option<SplitSpec> {
/// let (a, b) = (PluginName::new("search-a")?, PluginName::new("search-b")?);
/// let split = SplitSpec::new(a, Number::new(10.0)?).and(b, Number::new(5.0)?);
/// assert_eq!(split.targets.len(), 2);
/// # Some(split) }
/// # split().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SplitSpec {
    /// The other plugins, each once. What they do not have of 100 stays here.
    pub targets: Vec<SplitTarget>,
    /// Where the key of a call is: calls with the same one go the same way. `None` is chance for each.
    pub hash_on: Option<KeySpec>,
}

/// One of the plugins of a `split`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SplitTarget {
    /// The other plugin.
    pub plugin: PluginName,
    /// How many of 100 calls go there.
    pub percent: Number,
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
    pub fn new(to: PluginName, percent: Number) -> Self {
        Self {
            targets: Vec::new(),
            hash_on: None,
        }
        .and(to, percent)
    }

    /// And so many to another.
    #[must_use]
    pub fn and(mut self, plugin: PluginName, percent: Number) -> Self {
        self.targets.push(SplitTarget { plugin, percent });
        self
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
    pub(crate) fn others(&self) -> Vec<(Cow<'static, str>, &PluginName)> {
        let split = self.split.iter().flat_map(|split| {
            let is_one = split.targets.len() == 1;
            let targets = split.targets.iter().enumerate();
            targets.map(move |(index, target)| {
                let key = match is_one {
                    true => "split.to".into(),
                    false => format!("split.targets[{index}].plugin").into(),
                };
                (key, &target.plugin)
            })
        });
        let shadow = self.shadow.as_ref();
        let shadow = shadow.map(|shadow| ("shadow.to".into(), &shadow.to));
        split.chain(shadow).collect()
    }

    /// The other plugins that have a part of the calls.
    pub(crate) fn split_to(&self) -> impl Iterator<Item = &PluginName> {
        let targets = self.split.iter().flat_map(|split| &split.targets);
        let some = targets.filter(|target| target.percent.get() > 0.0);
        some.map(|target| &target.plugin)
    }
}
