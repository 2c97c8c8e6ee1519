use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A part of a spec, which its clones have in common until one of them is changed.
///
/// It is read and changed as the part itself. Clones that nobody has changed are equal without a look at what they
/// say, and take no memory of their own: so a config that is nearly another is cheap to make, to compare and to keep.
///
/// ```
/// use std::time::Duration;
/// use tower_plugins::config::PluginSpec;
///
/// let search = PluginSpec::http("search", "http://127.0.0.1:8080")?;
/// let mut patient = search.clone();
/// patient.policy.deadline = Some(Duration::from_secs(60));
/// assert_ne!(patient.policy, search.policy);
/// assert_eq!(patient.upstream, search.upstream);
/// # Ok::<(), tower_plugins::config::ConfigError>(())
/// ```
#[derive(Clone, Default)]
pub struct Shared<T>(Arc<T>);

impl<T: Clone> Shared<T> {
    /// The part by itself.
    #[must_use]
    pub fn into_inner(self) -> T {
        Arc::unwrap_or_clone(self.0)
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Who changes it has it alone from then on.
impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T: Eq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl<T: Eq> PartialEq<T> for Shared<T> {
    fn eq(&self, other: &T) -> bool {
        *self.0 == *other
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
