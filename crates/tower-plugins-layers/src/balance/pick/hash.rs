use super::super::key::{hash, mix};

/// Points of an endpoint of weight 1, as in ketama.
const POINTS: u64 = 160;
/// The most points on a ring, unless there are more endpoints.
const MOST_POINTS: u64 = 1 << 19;
/// The primes that the Maglev paper measures.
const SMALL_TABLE: usize = 65_537;
const LARGE_TABLE: usize = 655_373;
/// Above this a small table would be too coarse.
const SMALL_TABLE_SERVES: usize = 1000;

/// Points on a circle, each of which has the keys before it.
#[derive(Debug)]
pub(super) struct Ring {
    /// A position and the index of its endpoint, in order.
    points: Box<[(u64, u32)]>,
    /// Where to begin to look, by the first bits of a key.
    starts: Box<[u32]>,
    shift: u32,
}

impl Ring {
    pub(super) fn new(keys: &[&str], weights: &[u32]) -> Self {
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        // By powers of two, so that it seldom changes when an endpoint comes or goes.
        let mut halvings = 0;
        while (POINTS * total) >> halvings > MOST_POINTS.max(2 * keys.len() as u64) {
            halvings += 1;
        }
        let mut points = Vec::new();
        for (i, (key, &weight)) in keys.iter().zip(weights).enumerate() {
            let seed = hash(key.as_bytes());
            let own = (POINTS * u64::from(weight)) >> halvings;
            points.extend((0..own.max(1)).map(|n| {
                let step = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (mix(seed.wrapping_add(step)), i as u32)
            }));
        }
        // Two endpoints at one place: the order of names decides, whatever order they came in.
        points.sort_unstable_by(|one, other| {
            let name = |i: u32| keys[i as usize];
            (one.0, name(one.1)).cmp(&(other.0, name(other.1)))
        });
        let bits = usize::BITS - points.len().leading_zeros();
        let shift = 64 - bits;
        let starts = (0..1_u64 << bits)
            .map(|first| points.partition_point(|point| point.0 < first << shift) as u32)
            .collect();
        Self {
            points: points.into(),
            starts,
            shift,
        }
    }

    fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let mut at = self.starts[(key >> self.shift) as usize] as usize;
        while at < self.points.len() && self.points[at].0 < key {
            at += 1;
        }
        let (before, from) = self.points.split_at(at);
        from.iter().chain(before).map(|&(_, index)| index as usize)
    }
}

/// A table in which each endpoint has as many places as its weight says, and nearly the same ones whoever else is there.
#[derive(Debug)]
pub(super) struct Maglev {
    table: Box<[u32]>,
}

impl Maglev {
    pub(super) fn new(keys: &[&str], weights: &[u32]) -> Self {
        let size = if keys.len() <= SMALL_TABLE_SERVES {
            SMALL_TABLE
        } else {
            LARGE_TABLE
        };
        let heaviest = f64::from(weights.iter().copied().max().unwrap_or(1));
        // In the order of names, whatever order they came in.
        let mut names: Vec<_> = (0..keys.len()).collect();
        names.sort_unstable_by_key(|&i| keys[i]);
        let mut fillers: Vec<_> = names
            .into_iter()
            .map(|i| Filler::new(i, keys[i], f64::from(weights[i]) / heaviest, size))
            .collect();
        let mut table = vec![u32::MAX; size];
        let mut free = if fillers.is_empty() { 0 } else { size };
        'all: loop {
            for filler in &mut fillers {
                if free == 0 {
                    break 'all;
                }
                if filler.is_its_turn() {
                    filler.fill(&mut table);
                    free -= 1;
                }
            }
            if free == 0 {
                break;
            }
        }
        Self {
            table: table.into(),
        }
    }

    fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let at = (key % self.table.len() as u64) as usize;
        let (before, from) = self.table.split_at(at);
        from.iter().chain(before).map(|&index| index as usize)
    }
}

/// An endpoint on its way through the table.
struct Filler {
    index: u32,
    at: usize,
    step: usize,
    share: f64,
    due: f64,
}

impl Filler {
    fn new(index: usize, key: &str, share: f64, size: usize) -> Self {
        let hash = hash(key.as_bytes());
        let step = mix(hash ^ 0x5bd1_e995_9e37_79b9) % (size as u64 - 1) + 1;
        Self {
            index: index as u32,
            at: (hash % size as u64) as usize,
            step: step as usize,
            share,
            due: 0.0,
        }
    }

    fn is_its_turn(&mut self) -> bool {
        self.due += self.share;
        let due = self.due >= 1.0;
        if due {
            self.due -= 1.0;
        }
        due
    }

    /// Takes its next place that is free; there must be one.
    fn fill(&mut self, table: &mut [u32]) {
        while table[self.at] != u32::MAX {
            self.at = (self.at + self.step) % table.len();
        }
        table[self.at] = self.index;
    }
}

/// One of the two.
#[derive(Debug)]
pub(super) enum Hashes {
    Ring(Ring),
    Maglev(Maglev),
}

impl Hashes {
    /// The endpoints for `key` in their order, some of them more than once: `visit` says when to stop.
    pub(super) fn walk<T>(
        &self,
        key: u64,
        most: usize,
        visit: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        match self {
            Self::Ring(ring) => ring.walk(key).take(most).find_map(visit),
            Self::Maglev(maglev) => maglev.walk(key).take(most).find_map(visit),
        }
    }
}
