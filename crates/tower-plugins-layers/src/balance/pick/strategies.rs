//! Each strategy, over the endpoints of one level.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::super::{BalancePolicy, Member, Strategy};
use super::alias::Alias;
use super::bound::Bound;
use super::hash::{Hashes, Maglev, Ring};
use super::turns;
use super::view::{Verdict, View};

/// Draws before all members are looked at.
const DRAWS: usize = 4;
/// Turns that are passed over before all members are looked at.
const TURNS: usize = 64;
/// As many members are all compared where the least of them is wanted.
const COMPARED: usize = 32;
/// Of more than that, so many are.
const SAMPLED: usize = 10;
/// Places of a key that are tried before all members are looked at.
const PLACES: usize = 128;

/// What a strategy prepares for the endpoints of a level.
#[derive(Debug)]
pub(super) enum Table {
    Turns {
        /// In which order, if it is not each in turn.
        order: Option<Box<[u32]>>,
        next: Box<CachePadded<AtomicUsize>>,
    },
    Draws(Option<Alias>),
    Compare,
    Hashes(Hashes, Option<Bound>),
}

impl Table {
    /// `relative` are the weights, if they differ.
    pub(super) fn new(
        policy: &BalancePolicy,
        keys: &[&str],
        weights: &[u32],
        relative: Option<&[f64]>,
    ) -> Self {
        let turns = |order| Self::Turns {
            order,
            next: Box::default(),
        };
        let bound = || policy.load_factor.map(|factor| Bound::new(factor, weights));
        match policy.strategy {
            Strategy::RoundRobin => turns(None),
            Strategy::WeightedRoundRobin => turns(relative.map(|_| turns::order(weights))),
            Strategy::Random | Strategy::LeastRequest => Self::Draws(None),
            Strategy::PeakEwma | Strategy::WeightedRandom => Self::Draws(relative.map(Alias::new)),
            Strategy::LeastConnections | Strategy::LeastLatency => Self::Compare,
            Strategy::RingHash => Self::Hashes(Hashes::Ring(Ring::new(keys, weights)), bound()),
            Strategy::Maglev => Self::Hashes(Hashes::Maglev(Maglev::new(keys, weights)), bound()),
        }
    }

    /// The index of one that is usable, if any is.
    pub(super) fn pick<S: Member>(
        &self,
        policy: &BalancePolicy,
        view: &View<'_, S>,
        key: Option<u64>,
    ) -> Option<usize> {
        match (self, policy.strategy) {
            (Self::Turns { order, next }, _) => in_turn(view, order.as_deref(), next),
            (Self::Draws(alias), Strategy::PeakEwma) => {
                let draws = |i| view.verdict(i) == Verdict::Yes;
                let (one, other) = two(view, || draw(view, alias.as_ref()), draws)?;
                Some(other.map_or(one, |other| lighter(view, one, other)))
            }
            (Self::Draws(_), Strategy::LeastRequest) => {
                let draws = |i| view.is_usable(i, view.now);
                let (one, other) = two(view, || fastrand::usize(..view.len()), draws)?;
                Some(other.map_or(one, |other| fewer(view, policy.bias, one, other)))
            }
            (Self::Draws(alias), _) => any(view, || draw(view, alias.as_ref())),
            (Self::Compare, Strategy::LeastLatency) => {
                least(view, |member| member.rtt(view.now).as_secs_f64())
            }
            (Self::Compare, _) => least(view, |member| member.in_flight() as f64),
            (Self::Hashes(hashes, bound), _) => match key {
                Some(key) => hashed(view, hashes, bound.as_ref(), key),
                None => any(view, || fastrand::usize(..view.len())),
            },
        }
    }
}

fn draw<S: Member>(view: &View<'_, S>, alias: Option<&Alias>) -> usize {
    alias.map_or_else(|| fastrand::usize(..view.len()), Alias::draw)
}

fn in_turn<S: Member>(
    view: &View<'_, S>,
    order: Option<&[u32]>,
    next: &AtomicUsize,
) -> Option<usize> {
    let turns = order.map_or(view.len(), <[u32]>::len);
    // A member that is skipped uses up its turn, or its successor would get it every time.
    let turn = || {
        let turn = next.fetch_add(1, Relaxed) % turns;
        order.map_or(turn, |order| order[turn] as usize)
    };
    first(view, (0..turns.min(TURNS)).map(|_| turn()))
}

fn any<S: Member>(view: &View<'_, S>, draw: impl Fn() -> usize) -> Option<usize> {
    first(view, (0..2 * DRAWS).map(|_| draw()))
}

/// The first of `offers` that takes the call, or else any that does.
fn first<S: Member>(view: &View<'_, S>, offers: impl Iterator<Item = usize>) -> Option<usize> {
    let mut spare = None;
    let mut spares = 0;
    for i in offers {
        match view.verdict(i) {
            Verdict::Yes => return Some(i),
            Verdict::Spare => {
                spares += 1;
                // Any of them: the first would be the same one each time round.
                if fastrand::usize(..spares) == 0 {
                    spare = Some(i);
                }
            }
            Verdict::No => {}
        }
    }
    spare.or_else(|| view.scan())
}

/// Two different ones that take the call, as `draw` draws them; one, if there is but one.
fn two<S: Member>(
    view: &View<'_, S>,
    draw: impl Fn() -> usize,
    takes: impl Fn(usize) -> bool,
) -> Option<(usize, Option<usize>)> {
    let len = view.len();
    let mut found = None;
    let draws = if len > 1 { DRAWS } else { 0 };
    for _ in 0..draws {
        let one = draw();
        let mut other = draw();
        if other == one {
            other = (one + fastrand::usize(1..len)) % len;
        }
        for i in [one, other] {
            if found == Some(i) || !takes(i) {
                continue;
            }
            match found {
                None => found = Some(i),
                Some(first) => return Some((first, Some(i))),
            }
        }
    }
    let one = found.or_else(|| view.scan())?;
    let start = fastrand::usize(..len);
    Some((one, view.scan_from(start, |i| i != one)))
}

fn lighter<S: Member>(view: &View<'_, S>, one: usize, other: usize) -> usize {
    let load = |i| {
        let (member, weight) = (view.member(i), view.weight(i));
        let load = member.weighted_load(view.now, weight);
        if !member.is_back(view.now) {
            return load;
        }
        load.max(fastest(view, i).as_secs_f64() * (member.in_flight() as f64 / weight + 1.0))
    };
    if load(other) < load(one) { other } else { one }
}

/// What the fastest of the others is thought to need; of many others that of some.
fn fastest<S: Member>(view: &View<'_, S>, but: usize) -> Duration {
    let others = (0..view.len()).filter(|i| *i != but).take(COMPARED);
    let members = others.map(|i| view.member(i));
    let available = members.filter(|member| member.is_available(view.now));
    let times = available.map(|member| member.rtt(view.now));
    times.min().unwrap_or_default()
}

fn fewer<S: Member>(view: &View<'_, S>, bias: f64, one: usize, other: usize) -> usize {
    let calls = |i| view.member(i).in_flight();
    let (heavy, light) = (view.weight(one), view.weight(other));
    let chosen = if (heavy - light).abs() < f64::EPSILON && bias > 0.0 {
        calls(other) < calls(one)
    } else {
        let share = |weight: f64, calls: usize| weight / (calls as f64 + 1.0).powf(bias);
        let (one, other) = (share(heavy, calls(one)), share(light, calls(other)));
        fastrand::f64() * (one + other) >= one
    };
    if chosen { other } else { one }
}

/// The usable one with the least cost for its weight; of equals one by weight. Of many, the least of some that
/// stand together, from a random one on.
fn least<S: Member>(view: &View<'_, S>, cost: impl Fn(&S) -> f64) -> Option<usize> {
    let len = view.len();
    let start = fastrand::usize(..len.max(1));
    let looks = if len > COMPARED { SAMPLED } else { len };
    let mut best: Option<(usize, f64)> = None;
    let mut equals = 0.0;
    for i in (start..len).chain(0..start).take(looks) {
        if !view.is_usable(i, view.now) {
            continue;
        }
        let weight = view.weight(i);
        let cost = cost(view.member(i)) / weight;
        match best {
            Some((_, least)) if cost > least => continue,
            Some((_, least)) if cost >= least => equals += weight,
            _ => equals = weight,
        }
        if equals <= weight || fastrand::f64() * equals < weight {
            best = Some((i, cost));
        }
    }
    best.map_or_else(|| view.scan(), |(i, _)| Some(i))
}

fn hashed<S: Member>(
    view: &View<'_, S>,
    hashes: &Hashes,
    bound: Option<&Bound>,
    key: u64,
) -> Option<usize> {
    let mut spare = None;
    let mut last = usize::MAX;
    let mut room = bound.map(|bound| bound.room(view));
    let found = hashes.walk(key, PLACES.min(16 * view.len()), |i| {
        if std::mem::replace(&mut last, i) == i || !view.is_usable(i, view.now) {
            return None;
        }
        if room.as_mut().is_none_or(|room| room.takes(i)) {
            return Some(i);
        }
        spare.get_or_insert(i);
        None
    });
    found.or_else(|| {
        // Always the same order for the same key.
        let start = (key % view.len() as u64) as usize;
        let takes = room.as_ref();
        view.scan_from(start, |i| takes.is_none_or(|room| room.takes_now(i)))
            .or(spare)
            .or_else(|| view.scan_from(start, |_| true))
    })
}
