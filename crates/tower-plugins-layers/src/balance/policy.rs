use std::sync::Arc;

use super::KeyFrom;

/// How one of the endpoints that may be picked is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Strategy {
    /// The one with less load of two that are drawn by weight, by the peak EWMA of
    /// [`Load`](super::Load) as a rule. After Mitzenmacher, "The Power of Two Choices in Randomized
    /// Load Balancing" (2001), and Finagle's P2C.
    #[default]
    PeakEwma,
    /// Each in turn, whatever its load and weight.
    RoundRobin,
    /// Each in turn, a heavier one more often, its turns spread evenly. The order is that of earliest-deadline-first
    /// over the windows of proportionate fairness (Baruah, Cohen, Plaxton, Varvel, "Proportionate Progress", 1996):
    /// at each moment each has had its share of the turns to within one.
    WeightedRoundRobin,
    /// Any, whatever its load and weight.
    Random,
    /// Any, a heavier one more often. (Vose, "A Linear Algorithm for Generating Random Numbers with a Given
    /// Distribution", 1991: an alias table.)
    WeightedRandom,
    /// Of two drawn at random the one with fewer calls under way. Where weights differ, one of the two by
    /// `weight / (calls + 1)^bias`. (Envoy's least request.)
    LeastRequest,
    /// The one with the fewest calls under way for its weight. All of up to 32 are looked at; of more, 10.
    LeastConnections,
    /// The one whose calls take the least time for its weight. All of up to 32 are looked at; of more, 10.
    LeastLatency,
    /// The next on a ring to the hash of the call's key: a key stays with its endpoint as others come and go.
    /// (Karger and others, "Consistent Hashing and Random Trees", 1997; 160 points per unit of weight as in ketama.)
    RingHash,
    /// By a table of hashes: faster and more even than a ring, a little more moves when an endpoint comes or goes.
    /// (Eisenbud and others, "Maglev: A Fast and Reliable Software Network Load Balancer", 2016.)
    Maglev,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::PeakEwma,
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::Random,
        Self::WeightedRandom,
        Self::LeastRequest,
        Self::LeastConnections,
        Self::LeastLatency,
        Self::RingHash,
        Self::Maglev,
    ];

    /// Whether it sends calls with the same key to the same endpoint.
    #[must_use]
    pub const fn is_hash(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// What becomes of a call whose subset has no endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum SubsetFallback {
    /// It goes to any endpoint.
    #[default]
    Any,
    /// It is refused.
    None,
}

/// How a balancer picks.
///
/// Values that make no sense are moved to the nearest that does; when it is read by serde, they are errors.
///
/// | setting | default | |
/// | --- | --- | --- |
/// | [`strategy`](Self::strategy) | [`PeakEwma`](Strategy::PeakEwma) | |
/// | [`bias`](Self::bias) | 1 | for [`LeastRequest`](Strategy::LeastRequest) |
/// | [`hash_on`](Self::hash_on) | nothing: at random | for [`RingHash`](Strategy::RingHash), [`Maglev`](Strategy::Maglev) |
/// | [`load_factor`](Self::load_factor) | 1.25 | for the same two |
/// | [`panic_threshold`](Self::panic_threshold) | 0.5 | |
/// | [`overprovisioning`](Self::overprovisioning) | 1.4 | |
/// | [`zone`](Self::zone) | none | |
/// | [`subset`](Self::subset), [`subset_on`](Self::subset_on) | none | |
/// | [`subset_fallback`](Self::subset_fallback) | [`Any`](SubsetFallback::Any) | |
///
/// ```
/// use http::HeaderName;
/// use tower_plugins_layers::balance::{BalancePolicy, KeyFrom, Strategy};
///
/// let policy = BalancePolicy::new(Strategy::Maglev)
///     .hash_on(KeyFrom::header(HeaderName::from_static("x-user")))
///     .zone("eu-1a");
/// # let _ = policy;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "super::text::RawPolicy"))]
pub struct BalancePolicy {
    pub(super) strategy: Strategy,
    pub(super) bias: f64,
    pub(super) hash_on: Vec<KeyFrom>,
    pub(super) load_factor: Option<f64>,
    pub(super) panic_threshold: f64,
    pub(super) overprovisioning: f64,
    pub(super) zone: Option<Arc<str>>,
    pub(super) subset: Vec<(Arc<str>, Arc<str>)>,
    pub(super) subset_on: Vec<(Arc<str>, KeyFrom)>,
    pub(super) subset_fallback: SubsetFallback,
}

impl BalancePolicy {
    /// Picks by `strategy`, with the defaults for the rest.
    #[must_use]
    pub const fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            bias: 1.0,
            hash_on: Vec::new(),
            load_factor: Some(1.25),
            panic_threshold: 0.5,
            overprovisioning: 1.4,
            zone: None,
            subset: Vec::new(),
            subset_on: Vec::new(),
            subset_fallback: SubsetFallback::Any,
        }
    }

    /// Sets how one is picked of those that may be.
    #[must_use]
    pub const fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// How much calls under way count beside a weight, at least 0: at 0 only weights count.
    #[must_use]
    pub const fn bias(mut self, bias: f64) -> Self {
        self.bias = if bias >= 0.0 { bias } else { 0.0 };
        self
    }

    /// Takes the key of a call from there. Of several the first that a call has counts; a call without a key goes
    /// anywhere.
    #[must_use]
    pub fn hash_on(mut self, key: KeyFrom) -> Self {
        self.hash_on.push(key);
        self
    }

    /// An endpoint with more than so many times the mean of calls under way is passed over, and the call goes to the
    /// next in the order of its key; at least 1, and `None` for no bound. (Mirrokni, Thorup, Zadimoghaddam,
    /// "Consistent Hashing with Bounded Loads", 2016.)
    #[must_use]
    pub fn load_factor(mut self, factor: impl Into<Option<f64>>) -> Self {
        self.load_factor = factor.into().map(|factor| factor.max(1.0));
        self
    }

    /// When less than this share of a level's endpoints may be picked, and the other levels cannot make up for it,
    /// ejection is ignored there: a whole set is hardly an outlier. 0 for never.
    ///
    /// A circuit that is open still refuses. Ejection is a judgement from outside and may be wrong; a
    /// breaker answers for its endpoint.
    #[must_use]
    pub const fn panic_threshold(mut self, share: f64) -> Self {
        self.panic_threshold = if share >= 0.0 { share.min(1.0) } else { 0.0 };
        self
    }

    /// Of how much more than its calls a level is taken to be capable, at least 1: at 1.4 it keeps all of them until
    /// less than 72 % of its endpoints may be picked, and loses 1.4 % with each 1 % from there. (Envoy's
    /// overprovisioning factor.)
    #[must_use]
    pub const fn overprovisioning(mut self, factor: f64) -> Self {
        self.overprovisioning = factor.max(1.0);
        self
    }

    /// The zone that calls come from: endpoints of the same priority elsewhere get what those here cannot take.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Only endpoints with this label, and with each other label that is set this way.
    #[must_use]
    pub fn subset(mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        self.subset.push((name.into(), value.into()));
        self
    }

    /// Each call goes to endpoints where this label has the value that the call has there. With several, all
    /// of them must match.
    #[must_use]
    pub fn subset_on(mut self, name: impl Into<Arc<str>>, key: KeyFrom) -> Self {
        self.subset_on.push((name.into(), key));
        self
    }

    /// Says what becomes of calls whose subset has no endpoint, or that do not say which they want.
    #[must_use]
    pub const fn subset_fallback(mut self, fallback: SubsetFallback) -> Self {
        self.subset_fallback = fallback;
        self
    }
}

impl Default for BalancePolicy {
    fn default() -> Self {
        Self::new(Strategy::PeakEwma)
    }
}

impl From<Strategy> for BalancePolicy {
    fn from(strategy: Strategy) -> Self {
        Self::new(strategy)
    }
}
