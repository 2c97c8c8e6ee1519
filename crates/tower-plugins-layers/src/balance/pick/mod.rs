//! Which member a call goes to: first the subset, then the level, then the strategy.

mod alias;
mod bound;
mod hash;
mod health;
mod strategies;
mod turns;
mod view;

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;
use tokio::time::Instant;

use self::health::Health;
use self::strategies::Table;
use self::view::View;
use super::key;
use super::snapshot::Slot;
use super::{BalancePolicy, EndpointMeta, LevelStatus, Member, SubsetFallback};
use crate::RequestHead;

/// What a picker knows of a call.
pub(super) struct Wanted<'a> {
    pub(super) head: RequestHead<'a>,
    pub(super) now: Instant,
    /// Members that have given the call back.
    pub(super) tried: &'a [u64],
    /// Members that other attempts went to.
    pub(super) avoid: &'a [u64],
    /// Whether it is an attempt beyond the first.
    pub(super) retry: bool,
}

/// Picks among members whose number and weights do not change.
#[derive(Debug)]
pub(super) struct Picker {
    policy: BalancePolicy,
    all: Part,
    /// By the values of the labels of `subset_on`.
    parts: HashMap<Box<[u8]>, Part>,
}

/// Why nobody was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nobody {
    /// The call was offered to the only one there is.
    OnlyOne,
    /// None is available.
    Available,
    /// Some are, and none takes a retry.
    Retries,
    /// The call wants a subset that has no members.
    Subset,
}

impl Picker {
    /// `endpoints` are keys and what is said of them.
    pub(super) fn new(policy: BalancePolicy, endpoints: &[(&str, &EndpointMeta)]) -> Self {
        let fits = |&i: &u32| {
            let meta = endpoints[i as usize].1;
            let mut wanted = policy.subset.iter();
            wanted.all(|(name, value)| meta.label_of(name) == Some(value))
        };
        let everyone = 0..endpoints.len() as u32;
        let mut members: Vec<_> = everyone.clone().filter(fits).collect();
        if members.is_empty() && policy.subset_fallback == SubsetFallback::Any {
            members = everyone.collect();
        }
        let mut by_label = BTreeMap::<_, Vec<u32>>::new();
        if !policy.subset_on.is_empty() {
            for &i in &members {
                let labels = policy.subset_on.iter().map(|(name, _)| {
                    let value = endpoints[i as usize].1.label_of(name)?;
                    Some(value.as_bytes())
                });
                if let Some(values) = joined(labels) {
                    by_label.entry(values.to_vec()).or_default().push(i);
                }
            }
        }
        let part = |members: &[u32]| Part::new(&policy, endpoints, members);
        Self {
            all: part(&members),
            parts: by_label
                .into_iter()
                .map(|(values, members)| (values.into(), part(&members)))
                .collect(),
            policy,
        }
    }

    pub(super) const fn policy(&self) -> &BalancePolicy {
        &self.policy
    }

    /// The members that `head`'s call may go to.
    fn part(&self, head: RequestHead<'_>) -> Option<&Part> {
        if self.policy.subset_on.is_empty() {
            return Some(&self.all);
        }
        let values: SmallVec<[_; 4]> = self
            .policy
            .subset_on
            .iter()
            .map(|(_, key)| key.take(head))
            .collect();
        let part = joined(values.iter().map(Option::as_deref));
        let part = part.and_then(|values| self.parts.get(&*values));
        part.or(match self.policy.subset_fallback {
            SubsetFallback::Any => Some(&self.all),
            SubsetFallback::None => None,
        })
    }

    /// The index of an available member that may be picked.
    pub(super) fn pick<S: Member>(
        &self,
        slots: &[Slot<S>],
        wanted: &Wanted<'_>,
    ) -> Result<usize, Nobody> {
        let part = self.part(wanted.head).ok_or(Nobody::Subset)?;
        match (part.len, wanted.tried.len()) {
            (0, _) => return Err(Nobody::Subset),
            // The only member says for itself why it does not take the call.
            (1, 0) => return Ok(part.levels[0].indices[0] as usize),
            (1, _) => return Err(Nobody::OnlyOne),
            (all, tried) if all <= tried => return Err(Nobody::Available),
            _ => {}
        }
        let key = if self.policy.strategy.is_hash() {
            let mut keys = self.policy.hash_on.iter();
            keys.find_map(|key| key.take(wanted.head))
                .map(|key| key::hash(&key))
        } else {
            None
        };
        part.pick(&self.policy, slots, wanted, key)
            .ok_or_else(|| part.nobody(slots, wanted))
    }

    /// The levels of all members, without call-time subsets.
    pub(super) fn levels<S: Member>(&self, slots: &[Slot<S>], now: Instant) -> Vec<LevelStatus> {
        let counts = self.all.count(slots, now);
        let shares = health::spill(&self.policy, &counts);
        let levels = self.all.levels.iter().zip(counts).zip(shares);
        levels
            .map(|((level, (usable, all)), (share, panic))| LevelStatus {
                priority: level.priority,
                elsewhere: level.elsewhere,
                usable,
                all,
                share,
                panic,
            })
            .collect()
    }
}

/// Several values as one, no two lists alike.
fn joined<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> Option<SmallVec<[u8; 64]>> {
    let mut all = SmallVec::new();
    for value in values {
        let value = value?;
        all.extend_from_slice(&value.len().to_le_bytes());
        all.extend_from_slice(value);
    }
    Some(all)
}

/// Members by level, and what is known of the levels.
#[derive(Debug)]
struct Part {
    len: usize,
    levels: Box<[Level]>,
    health: Health,
}

/// Members of the same priority that are in the caller's zone, or all that are not.
#[derive(Debug)]
struct Level {
    priority: u32,
    elsewhere: bool,
    indices: Box<[u32]>,
    /// Relative to their mean, if they are not all the same.
    weights: Option<Box<[f64]>>,
    table: Table,
}

impl Part {
    fn new(policy: &BalancePolicy, endpoints: &[(&str, &EndpointMeta)], members: &[u32]) -> Self {
        let mut levels = BTreeMap::<_, Vec<u32>>::new();
        for &i in members {
            let meta = endpoints[i as usize].1;
            let zone = policy.zone.as_deref();
            let elsewhere = zone.is_some() && zone != meta.get_zone();
            levels
                .entry((meta.get_priority(), elsewhere))
                .or_default()
                .push(i);
        }
        let level = |((priority, elsewhere), indices): ((u32, bool), Vec<u32>)| {
            let ends = indices.iter().map(|&i| &endpoints[i as usize]);
            let (keys, weights): (Vec<_>, Vec<_>) =
                ends.map(|(key, meta)| (*key, meta.get_weight())).unzip();
            let relative = relative(&weights);
            Level {
                priority,
                elsewhere,
                table: Table::new(policy, &keys, &weights, relative.as_deref()),
                weights: relative,
                indices: indices.into(),
            }
        };
        let levels: Box<[_]> = levels.into_iter().map(level).collect();
        Self {
            len: members.len(),
            health: Health::new(levels.len()),
            levels,
        }
    }

    /// Members of each level that may be picked, and all of them.
    fn count<S: Member>(&self, slots: &[Slot<S>], now: Instant) -> SmallVec<[(usize, usize); 4]> {
        let usable = |&&i: &&u32| {
            let member = &slots[i as usize].core.member;
            member.is_available(now) && !member.is_ejected(now)
        };
        let levels = self.levels.iter();
        levels
            .map(|level| {
                let usable = level.indices.iter().filter(usable).count();
                (usable, level.indices.len())
            })
            .collect()
    }

    fn pick<S: Member>(
        &self,
        policy: &BalancePolicy,
        slots: &[Slot<S>],
        wanted: &Wanted<'_>,
        key: Option<u64>,
    ) -> Option<usize> {
        let refresh = |now| self.health.set(policy, &self.count(slots, now));
        let only = self.levels.len() == 1;
        if !only && self.health.is_old(wanted.now) {
            refresh(wanted.now);
        }
        let chosen = match key {
            _ if only => 0,
            // A key should keep its level as well as its endpoint.
            Some(key) => self.health.level(part_of_one(key::mix(!key))),
            None => self.health.level(fastrand::f64()),
        };
        let at = |level: usize, avoid: &[u64], panics: &dyn Fn() -> bool| {
            let Level {
                indices,
                weights,
                table,
                ..
            } = &self.levels[level];
            let view = View {
                slots,
                indices,
                weights: weights.as_deref(),
                now: wanted.now,
                tried: wanted.tried,
                avoid,
                retry: wanted.retry,
                panics,
                panic: OnceCell::new(),
            };
            let i = table.pick(policy, &view, key)?;
            Some(indices[i] as usize)
        };
        // A level is left for another when it has nobody, and not because another attempt was there.
        let anywhere = |level: usize, panics: &dyn Fn() -> bool| {
            at(level, wanted.avoid, panics).or_else(|| {
                let avoids = !wanted.avoid.is_empty();
                avoids.then(|| at(level, &[], panics))?
            })
        };
        let known = |level| {
            let panics = || {
                if only && self.health.is_old(wanted.now) {
                    refresh(wanted.now);
                }
                self.health.panics(level)
            };
            anywhere(level, &panics)
        };
        let others = || (0..self.levels.len()).filter(|&level| level != chosen);
        known(chosen)
            .or_else(|| others().find_map(known))
            // Nobody, as far as was known.
            .or_else(|| {
                refresh(Instant::now());
                std::iter::once(chosen)
                    .chain(others())
                    .filter(|&level| self.health.panics(level))
                    .find_map(|level| anywhere(level, &|| true))
            })
    }

    /// Why nobody was picked.
    fn nobody<S: Member>(&self, slots: &[Slot<S>], wanted: &Wanted<'_>) -> Nobody {
        let now = Instant::now();
        let mut all = self.levels.iter().flat_map(|level| &level.indices);
        let takes_first = |&i: &u32| {
            let core = &slots[i as usize].core;
            !wanted.tried.contains(&core.id) && core.member.is_available(now)
        };
        if wanted.retry && all.any(takes_first) {
            Nobody::Retries
        } else {
            Nobody::Available
        }
    }
}

/// From 0 to 1.
fn part_of_one(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// The weights by their mean, unless they are all the same.
fn relative(weights: &[u32]) -> Option<Box<[f64]>> {
    if weights.windows(2).all(|two| two[0] == two[1]) {
        return None;
    }
    let total: f64 = weights.iter().copied().map(f64::from).sum();
    let mean = total / weights.len() as f64;
    Some(
        weights
            .iter()
            .map(|&weight| f64::from(weight) / mean)
            .collect(),
    )
}
