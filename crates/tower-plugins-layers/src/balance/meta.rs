use std::sync::Arc;

/// What is said of an endpoint beside how it is reached.
///
/// | setting | default | |
/// | --- | --- | --- |
/// | [`weight`](Self::weight) | 1 | its share of the calls, beside the weights of the others |
/// | [`priority`](Self::priority) | 0 | 0 gets calls first, 1 what 0 cannot take, and so on |
/// | [`zone`](Self::zone) | none | where it is |
/// | [`label`](Self::label) | none | what subsets are made by |
///
/// ```
/// use tower_plugins_layers::balance::EndpointMeta;
///
/// let meta = EndpointMeta::new().weight(3).zone("eu-1a").label("version", "2");
/// assert_eq!(meta.label_of("version"), Some("2"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointMeta {
    weight: u32,
    priority: u32,
    zone: Option<Arc<str>>,
    labels: Vec<(Arc<str>, Arc<str>)>,
}

impl EndpointMeta {
    /// An endpoint of weight 1 and priority 0, without zone and labels.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            weight: 1,
            priority: 0,
            zone: None,
            labels: Vec::new(),
        }
    }

    /// Sets the weight, at least 1. Only its proportion to the others' counts.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight.max(1);
        self
    }

    /// Sets the priority: 0 is the first to get calls.
    #[must_use]
    pub const fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// Says where it is.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets a label. The last value of a name counts.
    #[must_use]
    pub fn label(mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        let (name, value) = (name.into(), value.into());
        match self.labels.binary_search_by(|(other, _)| other.cmp(&name)) {
            Ok(at) => self.labels[at].1 = value,
            Err(at) => self.labels.insert(at, (name, value)),
        }
        self
    }

    /// The weight.
    #[must_use]
    pub const fn get_weight(&self) -> u32 {
        self.weight
    }

    /// The priority.
    #[must_use]
    pub const fn get_priority(&self) -> u32 {
        self.priority
    }

    /// Where it is, if that is known.
    #[must_use]
    pub fn get_zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The value of a label.
    #[must_use]
    pub fn label_of(&self, name: &str) -> Option<&str> {
        let at = self
            .labels
            .binary_search_by(|(other, _)| (**other).cmp(name));
        at.ok().map(|at| &*self.labels[at].1)
    }

    /// The labels, by name.
    #[must_use]
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (&**name, &**value))
    }
}

impl Default for EndpointMeta {
    fn default() -> Self {
        Self::new()
    }
}
