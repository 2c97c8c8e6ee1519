use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::RateLimiter;
use super::bucket::Settings;
use super::limiter::{Standing, Terms};
use crate::gate::Admission;
use crate::{Reason, Refused};

/// The keys that one lock guards at least, while there are not as many locks as there may be.
const KEYS_A_SHARD: usize = 256;
const MAX_SHARDS: usize = 64;

/// What happens to a new key when there is a bucket for as many as there may be, and none of them is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum WhenFull {
    /// It takes the place of the key whose bucket is nearest to full, which gains what it lacked of that:
    /// the least that any key could gain. Those who are refused keep their buckets longest.
    #[default]
    DropNearestToFull,
    /// Its calls are refused until one is full.
    Refuse,
}

/// A token bucket for each key, with a bound on the number of keys.
///
/// A key has a bucket from its first call on. A bucket that is full again says no more than none at all,
/// so that it is dropped when another key needs its place: that changes no decision. Where none is full,
/// [`WhenFull`] says what happens.
///
/// A key is kept as a hash of 128 bits, made with two secrets of this limiter, so that a long key takes no
/// more room than a short one, and nobody can choose keys that meet. A bucket takes some 250 bytes.
///
/// Keys are spread over up to 64 locks, each held while a token is taken and never while anybody waits;
/// each has its share of `max_keys`.
///
/// ```
/// use tower_plugins_layers::rate_limit::KeyedRateLimiter;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let limiter = KeyedRateLimiter::new(10.0, 1, 10_000);
/// let now = tokio::time::Instant::now();
/// assert!(limiter.try_take(b"ann", now, 1).is_ok());
/// assert!(limiter.try_take(b"ann", now, 1).is_err());
/// assert!(limiter.try_take(b"bob", now, 1).is_ok());
/// # });
/// ```
pub struct KeyedRateLimiter {
    origin: Instant,
    max_keys: usize,
    when_full: WhenFull,
    secrets: [RandomState; 2],
    shards: Box<[CachePadded<Mutex<Shard>>]>,
}

impl KeyedRateLimiter {
    /// Buckets as [`RateLimiter::new`] makes them, for at most `max_keys` keys, at least one.
    #[must_use]
    pub fn new(per_second: f64, burst: u32, max_keys: usize) -> Self {
        let max_keys = max_keys.max(1);
        let shards = (max_keys / KEYS_A_SHARD).clamp(1, MAX_SHARDS);
        let settings = Settings::new(per_second, burst);
        let shard = |n| {
            let most = max_keys / shards + usize::from(n < max_keys % shards);
            CachePadded::new(Mutex::new(Shard::new(settings, most)))
        };
        Self {
            origin: Instant::now(),
            max_keys,
            when_full: WhenFull::default(),
            secrets: [RandomState::new(), RandomState::new()],
            shards: (0..shards).map(shard).collect(),
        }
    }

    /// Sets what happens when no bucket is free. The default is [`WhenFull::DropNearestToFull`].
    #[must_use]
    pub const fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Takes `n` tokens of `key`, all or none.
    ///
    /// # Errors
    /// The time after which they are there, or, where there is no bucket for a new key, the time after
    /// which there may be one.
    pub fn try_take(&self, key: &[u8], now: Instant, n: u32) -> Result<(), Duration> {
        let digest = self.digest(key);
        let mut shard = self.shard(digest);
        let limiter = shard.limiter(digest, self.origin, now, self.when_full)?;
        limiter.try_take_n(now, n)
    }

    pub(super) fn admit(
        &self,
        key: &[u8],
        now: Instant,
        n: u32,
        terms: Terms,
    ) -> Admission<Standing> {
        let digest = self.digest(key);
        let mut shard = self.shard(digest);
        // Under the lock, so that no bucket is dropped between finding it and taking from it.
        match shard.limiter(digest, self.origin, now, self.when_full) {
            Ok(limiter) => limiter.admit(now, n, terms),
            // Room for which nobody can say when it comes.
            Err(Duration::MAX) => Admission::Refused(Refused::new(Reason::RateLimited)),
            Err(wait) => Admission::Refused(Refused::new(Reason::RateLimited).retry_after(wait)),
        }
    }

    /// The tokens of `key` at `now`.
    #[must_use]
    pub fn available(&self, key: &[u8], now: Instant) -> f64 {
        let digest = self.digest(key);
        let shard = self.shard(digest);
        match shard.index.get(&digest) {
            Some(slot) => shard.slots[*slot].limiter.available(now),
            None => RateLimiter::since(self.origin, shard.settings).available(now),
        }
    }

    /// Fills the bucket of `key`.
    pub fn reset(&self, key: &[u8]) {
        let digest = self.digest(key);
        let mut shard = self.shard(digest);
        if let Some(slot) = shard.index.get(&digest) {
            shard.slots[*slot].limiter.reset();
            shard.sort_anew();
        }
    }

    /// Fills all buckets.
    pub fn reset_all(&self) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.slots.iter().for_each(|slot| slot.limiter.reset());
            shard.sort_anew();
        }
    }

    /// Gives all buckets new settings, each of which stays filled in proportion, one after the other. Who waits
    /// goes on waiting at the new rate, as with [`RateLimiter::set_rate`].
    pub fn set_rate(&self, per_second: f64, burst: u32) {
        let settings = Settings::new(per_second, burst);
        for shard in &self.shards {
            let mut shard = lock(shard);
            if shard.settings == settings {
                continue;
            }
            shard.settings = settings;
            for slot in &shard.slots {
                slot.limiter.set(settings);
            }
            shard.sort_anew();
        }
    }

    /// Keys that have a bucket.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).slots.len())
            .sum()
    }

    /// Whether no key has a bucket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most keys that may have one.
    #[must_use]
    pub const fn max_keys(&self) -> usize {
        self.max_keys
    }

    fn digest(&self, key: &[u8]) -> u128 {
        let [high, low] = &self.secrets;
        u128::from(high.hash_one(key)) << 64 | u128::from(low.hash_one(key))
    }

    fn shard(&self, digest: u128) -> MutexGuard<'_, Shard> {
        let high = (digest >> 64) as usize;
        lock(&self.shards[high % self.shards.len()])
    }
}

impl fmt::Debug for KeyedRateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimiter")
            .field("keys", &self.len())
            .field("max_keys", &self.max_keys)
            .field("when_full", &self.when_full)
            .finish_non_exhaustive()
    }
}

/// A shard is whole after each of its changes, whatever panicked.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Slot {
    digest: u128,
    limiter: Arc<RateLimiter>,
}

struct Shard {
    settings: Settings,
    most: usize,
    slots: Vec<Slot>,
    index: HashMap<u128, usize, BuildHasherDefault<Digested>>,
    /// For each slot a time that its bucket is not full before. A bucket that was drawn from since is full
    /// later, which is made good when it comes to the top.
    by_fill: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Shard {
    fn new(settings: Settings, most: usize) -> Self {
        Self {
            settings,
            most,
            slots: Vec::new(),
            index: HashMap::default(),
            by_fill: BinaryHeap::new(),
        }
    }

    /// The bucket of a key, made if there is room.
    fn limiter(
        &mut self,
        digest: u128,
        origin: Instant,
        now: Instant,
        when_full: WhenFull,
    ) -> Result<&Arc<RateLimiter>, Duration> {
        let slot = match self.index.get(&digest) {
            Some(slot) => *slot,
            None => self.insert(digest, origin, now, when_full)?,
        };
        Ok(&self.slots[slot].limiter)
    }

    fn insert(
        &mut self,
        digest: u128,
        origin: Instant,
        now: Instant,
        when_full: WhenFull,
    ) -> Result<usize, Duration> {
        let limiter = Arc::new(RateLimiter::since(origin, self.settings));
        let slot = if self.slots.len() < self.most {
            self.slots.push(Slot { digest, limiter });
            self.slots.len() - 1
        } else {
            let slot = self.vacate(now, when_full)?;
            let old = std::mem::replace(&mut self.slots[slot], Slot { digest, limiter });
            self.index.remove(&old.digest);
            slot
        };
        self.index.insert(digest, slot);
        self.by_fill.push(Reverse((0, slot)));
        Ok(slot)
    }

    /// Takes a slot out of `by_fill` whose bucket may be dropped, or says when there may be one.
    fn vacate(&mut self, now: Instant, when_full: WhenFull) -> Result<usize, Duration> {
        // Somebody waits for tokens of these.
        let mut held: SmallVec<[Reverse<(u64, usize)>; 8]> = SmallVec::new();
        let mut found = Err(Duration::MAX);
        while let Some(top) = self.by_fill.pop() {
            let Reverse((at, slot)) = top;
            let limiter = &self.slots[slot].limiter;
            let full_at = limiter.full_at();
            if full_at > at {
                self.by_fill.push(Reverse((full_at, slot)));
            } else if Arc::strong_count(limiter) > 1 {
                held.push(top);
            } else if at <= limiter.ticks(now) || when_full == WhenFull::DropNearestToFull {
                found = Ok(slot);
                break;
            } else {
                found = Err(limiter.time_to(at, now));
                self.by_fill.push(top);
                break;
            }
        }
        self.by_fill.extend(held);
        found
    }

    /// After buckets were filled, or given another rate.
    fn sort_anew(&mut self) {
        let slots = self.slots.iter().enumerate();
        self.by_fill = slots
            .map(|(n, slot)| Reverse((slot.limiter.full_at(), n)))
            .collect();
    }
}

/// The hash of what is a hash already.
#[derive(Default)]
struct Digested(u64);

impl Hasher for Digested {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, digest: u128) {
        self.0 = digest as u64;
    }
}
