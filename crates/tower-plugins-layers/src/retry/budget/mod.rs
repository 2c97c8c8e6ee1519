mod in_flight;
mod ratio;
mod tokens;

use tokio::time::Instant;

use self::in_flight::{InFlight, UnderWay};
use self::ratio::Ratio;
pub(super) use self::tokens::Tokens;

/// How a [`Budget`] bounds retries, and by how much.
///
/// | kind | a retry is allowed while | defaults |
/// | --- | --- | --- |
/// | `Ratio` | those of the last 10 s are fewer than `ratio` x calls in that time + `min_per_second` x 10 | 0.2, 10 |
/// | `InFlight` | those under way are fewer than `share` x calls under way, and in any case `min` | 0.2, 3 |
/// | `Tokens` | more than half of `max` tokens are left: a failure costs one, a success gives back `ratio` | 10, 0.1 |
///
/// `Ratio` is the budget of Finagle and Linkerd, `InFlight` that of Envoy's clusters, `Tokens` the
/// retry throttle of gRPC (gRFC A6). Numbers that are none count as 0, ratios as 1000 at the most.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        remote = "Self",
        tag = "kind",
        rename_all = "snake_case",
        deny_unknown_fields
    )
)]
pub enum BudgetLimits {
    /// Of the calls of the last ten seconds.
    Ratio {
        /// Retries for each call.
        #[cfg_attr(feature = "serde", serde(default = "defaults::share"))]
        ratio: f64,
        /// Retries a second whatever the calls, so that a quiet service can retry too.
        #[cfg_attr(feature = "serde", serde(default = "defaults::min_per_second"))]
        min_per_second: u32,
    },
    /// Of the calls under way. A call is under way until its response's head, and a retry from
    /// the decision to make it, its wait included.
    InFlight {
        /// Retries under way for each call under way.
        #[cfg_attr(feature = "serde", serde(default = "defaults::share"))]
        share: f64,
        /// Retries that may be under way whatever the calls.
        #[cfg_attr(feature = "serde", serde(default = "defaults::min"))]
        min: u32,
    },
    /// Of what failed and what succeeded. What costs a token is a failure of the kinds that are
    /// retried, whether it is or not, and a server's word not to retry.
    Tokens {
        /// Tokens at the most, and at first; at least 1.
        #[cfg_attr(feature = "serde", serde(default = "defaults::max"))]
        max: u32,
        /// Tokens that a success gives back.
        #[cfg_attr(feature = "serde", serde(default = "defaults::token_ratio"))]
        ratio: f64,
    },
}

mod defaults {
    pub(super) const fn share() -> f64 {
        0.2
    }
    pub(super) const fn min_per_second() -> u32 {
        10
    }
    #[cfg(feature = "serde")]
    pub(super) const fn min() -> u32 {
        3
    }
    #[cfg(feature = "serde")]
    pub(super) const fn max() -> u32 {
        10
    }
    #[cfg(feature = "serde")]
    pub(super) const fn token_ratio() -> f64 {
        0.1
    }
}

#[cfg(feature = "serde")]
impl crate::checked::Check for BudgetLimits {
    fn check(&self) -> Result<(), &'static str> {
        let (share, max) = match *self {
            Self::Ratio { ratio, .. } => (ratio, 1),
            Self::InFlight { share, .. } => (share, 1),
            Self::Tokens { max, ratio } => (ratio, max),
        };
        if !(0.0..=1000.0).contains(&share) {
            return Err("a budget's ratio or share is from 0 to 1000");
        }
        if max == 0 {
            return Err("a budget's `max` is at least one token");
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
crate::checked::checked!(BudgetLimits);

impl Default for BudgetLimits {
    /// One retry for five calls, and ten a second.
    fn default() -> Self {
        Self::Ratio {
            ratio: defaults::share(),
            min_per_second: defaults::min_per_second(),
        }
    }
}

/// What keeps retries and hedges from multiplying the load on a service that fails, by one of three
/// [rules](BudgetLimits).
///
/// It is a handle: clones share one history, and so do budgets made
/// [with other limits](Self::with_limits). Every operation takes constant time; what each call
/// pays goes to its thread's part of a sharded count.
///
/// ```
/// use tokio::time::Instant;
/// use tower_plugins_layers::retry::Budget;
///
/// let budget = Budget::new(0.5, 0);
/// let now = Instant::now();
/// let _call = budget.deposit(now);
/// assert!(budget.withdraw(now).is_none());
/// let _call = budget.deposit(now);
/// assert!(budget.withdraw(now).is_some());
/// assert!(budget.withdraw(now).is_none());
/// ```
#[derive(Clone, Debug)]
pub struct Budget {
    limits: BudgetLimits,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Ratio(Ratio),
    InFlight(InFlight),
    Tokens(Tokens),
}

impl Budget {
    /// [`BudgetLimits::Ratio`]: `ratio` retries for each call, in thousandths, and `min_per_second`.
    #[must_use]
    pub fn new(ratio: f64, min_per_second: u32) -> Self {
        BudgetLimits::Ratio {
            ratio,
            min_per_second,
        }
        .into()
    }

    /// [`BudgetLimits::InFlight`]: `share` of the calls under way, in thousandths, and at least `min`.
    #[must_use]
    pub fn in_flight(share: f64, min: u32) -> Self {
        BudgetLimits::InFlight { share, min }.into()
    }

    /// [`BudgetLimits::Tokens`]: `max` tokens, of which a success gives back `ratio`, in thousandths.
    #[must_use]
    pub fn tokens(max: u32, ratio: f64) -> Self {
        BudgetLimits::Tokens { max, ratio }.into()
    }

    /// A budget with other limits and the same history: what was spent stays spent. Limits of
    /// another kind begin anew.
    #[must_use]
    pub fn with_limits(&self, limits: BudgetLimits) -> Self {
        let kind = match (&self.kind, limits) {
            (
                Kind::Ratio(old),
                BudgetLimits::Ratio {
                    ratio,
                    min_per_second,
                },
            ) => Kind::Ratio(old.with_limits(ratio, min_per_second)),
            (Kind::InFlight(old), BudgetLimits::InFlight { share, min }) => {
                Kind::InFlight(old.with_limits(share, min))
            }
            (Kind::Tokens(old), BudgetLimits::Tokens { max, ratio }) => {
                Kind::Tokens(old.with_limits(max, ratio))
            }
            _ => return limits.into(),
        };
        Self { limits, kind }
    }

    /// The limits it was made with.
    #[must_use]
    pub const fn limits(&self) -> BudgetLimits {
        self.limits
    }

    /// Counts a call, which is under way until the deposit is dropped.
    #[must_use = "the call is over when this is dropped"]
    pub fn deposit(&self, now: Instant) -> Deposit {
        Deposit(match &self.kind {
            Kind::Ratio(ratio) => {
                ratio.deposit(now);
                None
            }
            Kind::InFlight(in_flight) => Some(in_flight.begin()),
            Kind::Tokens(_) => None,
        })
    }

    /// Takes one retry out of the budget, if there is one. It is under way until the withdrawal is
    /// dropped.
    #[must_use = "without it there must be no retry"]
    pub fn withdraw(&self, now: Instant) -> Option<Withdrawal> {
        match &self.kind {
            Kind::Ratio(ratio) => ratio.withdraw(now).then_some(Withdrawal(None)),
            Kind::InFlight(in_flight) => Some(Withdrawal(Some(in_flight.withdraw()?))),
            Kind::Tokens(tokens) => tokens.allows().then_some(Withdrawal(None)),
        }
    }

    /// Whether it has a retry to take.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        match &self.kind {
            Kind::Ratio(ratio) => ratio.allows(now),
            Kind::InFlight(in_flight) => in_flight.allows(),
            Kind::Tokens(tokens) => tokens.allows(),
        }
    }

    /// Whether it matters to it what becomes of an attempt.
    pub(super) const fn hears(&self) -> bool {
        matches!(self.kind, Kind::Tokens(_))
    }

    /// Tells of an attempt that failed in a way that is retried, or whose server wants no retry.
    pub fn failed(&self) {
        if let Kind::Tokens(tokens) = &self.kind {
            tokens.failed();
        }
    }

    /// Tells of an attempt that succeeded.
    pub fn succeeded(&self) {
        if let Kind::Tokens(tokens) = &self.kind {
            tokens.succeeded();
        }
    }

    /// Takes one retry as [`withdraw`](Self::withdraw) does, to be put back unless it is made.
    pub(crate) fn reserve(&self, now: Instant) -> Option<Reserved> {
        let withdrawal = self.withdraw(now)?;
        Some(Reserved {
            budget: self.clone(),
            withdrawal: Some(withdrawal),
        })
    }

    /// What hears of an attempt that failed or succeeded, if anything does.
    pub(super) const fn listener(&self) -> Option<&Tokens> {
        match &self.kind {
            Kind::Tokens(tokens) => Some(tokens),
            Kind::Ratio(_) | Kind::InFlight(_) => None,
        }
    }

    /// Puts back a retry that was taken and not made.
    pub(crate) fn give_back(&self, withdrawal: Withdrawal, now: Instant) {
        drop(withdrawal);
        if let Kind::Ratio(ratio) = &self.kind {
            ratio.give_back(now);
        }
    }
}

impl From<BudgetLimits> for Budget {
    fn from(limits: BudgetLimits) -> Self {
        let kind = match limits {
            BudgetLimits::Ratio {
                ratio,
                min_per_second,
            } => Kind::Ratio(Ratio::new(ratio, min_per_second)),
            BudgetLimits::InFlight { share, min } => Kind::InFlight(InFlight::new(share, min)),
            BudgetLimits::Tokens { max, ratio } => Kind::Tokens(Tokens::new(max, ratio)),
        };
        Self { limits, kind }
    }
}

impl Default for Budget {
    fn default() -> Self {
        BudgetLimits::default().into()
    }
}

/// A call's part in a [`Budget`].
#[derive(Debug)]
pub struct Deposit(#[expect(dead_code, reason = "held for its drop")] Option<UnderWay>);

/// A retry that a [`Budget`] allows.
#[derive(Debug)]
#[must_use = "the retry is over when this is dropped"]
pub struct Withdrawal(#[expect(dead_code, reason = "held for its drop")] Option<UnderWay>);

/// A retry that a [`Budget`] allows and that is not made yet. Dropped, it is put back.
#[derive(Debug)]
pub(crate) struct Reserved {
    budget: Budget,
    /// `None` once it was made.
    withdrawal: Option<Withdrawal>,
}

impl Reserved {
    /// It is made.
    pub(crate) fn take(mut self) -> Option<Withdrawal> {
        self.withdrawal.take()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(withdrawal) = self.withdrawal.take() {
            self.budget.give_back(withdrawal, Instant::now());
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Budget {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&self.limits, serializer)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Budget {
    /// A budget of its own, with these limits.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <BudgetLimits as serde::Deserialize>::deserialize(deserializer).map(Self::from)
    }
}
