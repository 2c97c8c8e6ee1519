//! What is wanted, told as simply as can be.

use std::collections::BTreeMap;

use tower_plugins::reload::OverlayKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) endpoint: u8,
    /// In seconds.
    pub(super) drain: u8,
}

impl Spec {
    /// As the keys of the plugin `name`.
    pub(super) fn keys(self, name: &str) -> String {
        let Self { endpoint, drain } = self;
        format!(
            "transport: toy, endpoint: e{endpoint}, drain_timeout: {drain}s, exclusive: {}, circuit_breaker: off, retry: off, connection: {{ request_timeout: 2s }}",
            name == "x"
        )
    }
}

/// Each plugin, and whether it is enabled.
pub(super) type File = BTreeMap<&'static str, (Spec, bool)>;

/// What the program made of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Updated(Spec),
    Removed,
    /// With the spec that it had, if that was not the file's.
    Disabled(Option<Spec>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Naive {
    file: File,
    own: BTreeMap<&'static str, Own>,
}

/// There is no such plugin.
#[derive(Debug)]
pub(super) struct NotFound;

impl Naive {
    fn runs(&self, name: &str) -> Option<Spec> {
        match (self.own.get(name), self.file.get(name)) {
            (Some(Own::Updated(spec)), _) | (None, Some((spec, true))) => Some(*spec),
            _ => None,
        }
    }

    /// All that runs.
    pub(super) fn running(&self) -> File {
        let names = super::NAMES.into_iter();
        names
            .filter_map(|name| Some((name, (self.runs(name)?, true))))
            .collect()
    }

    pub(super) fn overlay(&self) -> BTreeMap<&'static str, OverlayKind> {
        let kind = |own: &Own| match own {
            Own::Updated(_) => OverlayKind::Updated,
            Own::Removed => OverlayKind::Removed,
            Own::Disabled(_) => OverlayKind::Disabled,
        };
        self.own
            .iter()
            .map(|(name, own)| (*name, kind(own)))
            .collect()
    }

    fn with(&self, name: &'static str, own: impl Into<Option<Own>>) -> Self {
        let mut new = self.clone();
        match own.into() {
            Some(own) => new.own.insert(name, own),
            None => new.own.remove(name),
        };
        new
    }

    /// The file decides about those of which it says something else than before.
    pub(super) fn reloaded(&self, file: &File) -> Self {
        let mut new = self.clone();
        new.own
            .retain(|name, _| self.file.get(name) == file.get(name));
        new.file.clone_from(file);
        new
    }

    pub(super) fn updated(&self, name: &'static str, spec: Spec) -> Self {
        self.with(name, Own::Updated(spec))
    }

    pub(super) fn removed(&self, name: &'static str) -> Result<Self, NotFound> {
        if !matches!(self.own.get(name), Some(Own::Disabled(_))) {
            self.runs(name).ok_or(NotFound)?;
        }
        let is_known = self.file.contains_key(name);
        Ok(self.with(name, is_known.then_some(Own::Removed)))
    }

    pub(super) fn disabled(&self, name: &'static str) -> Result<Self, NotFound> {
        let spec = self.runs(name).ok_or(NotFound)?;
        let is_own = self.own.contains_key(name);
        Ok(self.with(name, Own::Disabled(is_own.then_some(spec))))
    }

    pub(super) fn enabled(&self, name: &'static str) -> Result<Self, NotFound> {
        match (self.own.get(name), self.file.get(name)) {
            (Some(Own::Removed), _) | (None, None) => Err(NotFound),
            (Some(Own::Disabled(Some(spec))), _) | (None, Some((spec, false))) => {
                Ok(self.updated(name, *spec))
            }
            (Some(Own::Disabled(None)), _) => Ok(self.with(name, None)),
            (Some(Own::Updated(_)), _) | (None, Some((_, true))) => Ok(self.clone()),
        }
    }

    pub(super) fn cleared(&self, name: &'static str) -> Result<Self, NotFound> {
        self.own.get(name).ok_or(NotFound)?;
        Ok(self.with(name, None))
    }
}
