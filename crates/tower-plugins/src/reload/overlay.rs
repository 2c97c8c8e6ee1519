//! What the program changed, plugin by plugin, over what the file says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::config::{Config, PluginName, PluginSpec};
use crate::error::{Error, Kind};

/// What is wanted: the config as it was given whole, and what was changed of it since then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    base: Arc<Config>,
    overlay: BTreeMap<PluginName, Overlay>,
}

/// What the program made of one plugin, whatever the file says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Overlay {
    /// Another spec.
    Updated(Box<PluginSpec>),
    /// It is not there.
    Removed,
    /// It is not there until it is enabled, with the spec that it has then if the file does not say.
    Disabled(Option<Box<PluginSpec>>),
}

/// What the program made of one plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverlayKind {
    /// It has another spec than in the file, or is not in the file.
    Updated,
    /// It was removed.
    Removed,
    /// It was disabled.
    Disabled,
}

impl fmt::Display for OverlayKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Updated => "updated",
            Self::Removed => "removed",
            Self::Disabled => "disabled",
        })
    }
}

/// One change of what is wanted.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    /// The whole config.
    Base(Box<Config>),
    /// The same after changes of single plugins that came later, and stand over it.
    Again {
        base: Arc<Config>,
        /// What was wanted when it came.
        before: Box<Wanted>,
    },
    Update(Box<PluginSpec>),
    Remove(PluginName),
    Enable(PluginName),
    Disable(PluginName),
    /// Back to what the file says of this plugin.
    Clear(PluginName),
    /// All of what was wanted once.
    Restore(Box<Wanted>),
}

impl Edit {
    /// Whether it takes the place of whatever was wanted before.
    pub(super) fn is_whole(&self) -> bool {
        self.name().is_none()
    }

    /// The plugin that it is of, if it is of one.
    pub(super) fn name(&self) -> Option<&PluginName> {
        match self {
            Self::Base(_) | Self::Again { .. } | Self::Restore(_) => None,
            Self::Update(spec) => Some(&spec.name),
            Self::Remove(name) | Self::Enable(name) | Self::Disable(name) | Self::Clear(name) => {
                Some(name)
            }
        }
    }
}

impl Wanted {
    /// The config that is to run.
    pub(super) fn config(&self) -> Arc<Config> {
        if self.overlay.is_empty() {
            return Arc::clone(&self.base);
        }
        let mut config = Config::clone(&self.base);
        for (name, overlay) in &self.overlay {
            config.disabled.remove(name);
            match overlay {
                Overlay::Updated(spec) => {
                    config.plugins.insert(name.clone(), PluginSpec::clone(spec));
                }
                Overlay::Removed => drop(config.plugins.remove(name)),
                Overlay::Disabled(_) => {
                    if let Some(spec) = config.plugins.remove(name) {
                        config.disabled.insert(name.clone(), spec);
                    }
                }
            }
        }
        Arc::new(config)
    }

    /// What makes the whole config of this wanted again, which came when `before` was.
    pub(super) fn again(&self, before: &Self) -> Edit {
        Edit::Again {
            base: Arc::clone(&self.base),
            before: Box::new(before.clone()),
        }
    }

    /// What the program changed.
    pub(super) fn overlay(&self) -> BTreeMap<PluginName, OverlayKind> {
        let kind = |overlay: &Overlay| match overlay {
            Overlay::Updated(_) => OverlayKind::Updated,
            Overlay::Removed => OverlayKind::Removed,
            Overlay::Disabled(_) => OverlayKind::Disabled,
        };
        let overlay = self.overlay.iter();
        overlay
            .map(|(name, overlay)| (name.clone(), kind(overlay)))
            .collect()
    }

    /// What is wanted after `edit`, and the plugins whose overlay it ends.
    pub(super) fn edited(&self, edit: Edit) -> Result<(Self, Vec<PluginName>), Error> {
        let mut new = self.clone();
        match edit {
            Edit::Base(mut config) => {
                config.share(&self.base);
                new.base = Arc::new(*config);
                let ended = self.ended_by(&new.base);
                new.overlay.retain(|name, _| !ended.contains(name));
                return Ok((new, ended));
            }
            Edit::Again { base, before } => {
                let is_older =
                    |name: &PluginName| before.overlay.get(name) == self.overlay.get(name);
                let ended: Vec<_> = self.ended_by(&base).into_iter().filter(is_older).collect();
                new.base = base;
                new.overlay.retain(|name, _| !ended.contains(name));
                return Ok((new, ended));
            }
            Edit::Restore(wanted) => return Ok((*wanted, Vec::new())),
            Edit::Update(spec) => {
                new.overlay
                    .insert(spec.name.clone(), Overlay::Updated(spec));
            }
            Edit::Remove(name) => {
                let is_disabled = matches!(new.overlay.get(&name), Some(Overlay::Disabled(_)));
                if !is_disabled {
                    new.running(&name)?;
                }
                if new.in_base(&name) {
                    new.overlay.insert(name, Overlay::Removed);
                } else {
                    new.overlay.remove(&name);
                }
            }
            Edit::Disable(name) => {
                let spec = new.running(&name)?;
                let is_own = new.overlay.contains_key(&name);
                let kept = is_own.then(|| Box::new(spec));
                new.overlay.insert(name, Overlay::Disabled(kept));
            }
            Edit::Enable(name) => new.enable(name)?,
            Edit::Clear(name) => {
                if new.overlay.remove(&name).is_none() {
                    return Err(unknown(&name, "the program has not changed it"));
                }
                return Ok((new, vec![name]));
            }
        }
        Ok((new, Vec::new()))
    }

    fn enable(&mut self, name: PluginName) -> Result<(), Error> {
        match self.overlay.get(&name) {
            Some(Overlay::Disabled(Some(spec))) => {
                let spec = spec.clone();
                self.overlay.insert(name, Overlay::Updated(spec));
                return Ok(());
            }
            Some(Overlay::Disabled(None)) => drop(self.overlay.remove(&name)),
            Some(Overlay::Removed) => {
                return Err(unknown(
                    &name,
                    "it was removed: update it with a spec, or clear its overlay",
                ));
            }
            Some(Overlay::Updated(_)) => return Ok(()),
            None => {}
        }
        if self.base.plugins.contains_key(&name) {
            return Ok(());
        }
        match self.base.disabled.get(&name) {
            Some(spec) => {
                let spec = Box::new(spec.clone());
                self.overlay.insert(name, Overlay::Updated(spec));
                Ok(())
            }
            None => Err(unknown(&name, "there is no such plugin in the config")),
        }
    }

    /// The spec that is to run of the plugin `name`.
    fn running(&self, name: &PluginName) -> Result<PluginSpec, Error> {
        let spec = match self.overlay.get(name) {
            Some(Overlay::Updated(spec)) => Some(&**spec),
            Some(Overlay::Removed | Overlay::Disabled(_)) => None,
            None => self.base.plugins.get(name),
        };
        let spec = spec.cloned();
        spec.ok_or_else(|| unknown(name, "there is no such plugin that runs"))
    }

    fn in_base(&self, name: &PluginName) -> bool {
        self.base.plugins.contains_key(name) || self.base.disabled.contains_key(name)
    }

    /// Plugins that the program changed, and of which `base` says something else than before.
    fn ended_by(&self, base: &Config) -> Vec<PluginName> {
        let of = |config: &Config, name: &PluginName| {
            let (on, off) = (config.plugins.get(name), config.disabled.get(name));
            (on.cloned(), off.cloned())
        };
        let names = self.overlay.keys();
        names
            .filter(|name| of(&self.base, name) != of(base, name))
            .cloned()
            .collect()
    }
}

fn unknown(name: &PluginName, why: &str) -> Error {
    let text: Arc<str> = name.as_str().into();
    Error::caused_by(Kind::NotFound, why.to_owned()).of_plugin(&text)
}
