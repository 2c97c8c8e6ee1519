//! Endpoints that come and go.

#![allow(
    clippy::disallowed_types,
    reason = "every call reads the set and few change it; a call takes one snapshot for each pick"
)]

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use arc_swap::ArcSwap;
use futures_core::Stream;
use tokio::time::Instant;

use super::snapshot::{Core, Slot, Snapshot};
use super::{BalancePolicy, EndpointMeta, EndpointStatus, LevelStatus, LiveBalance, Member};

/// A change of an [`EndpointSet`].
#[derive(Clone, Debug)]
pub enum Change<S> {
    /// An endpoint comes, or takes the place of the one with the same key.
    Insert(Arc<str>, S, EndpointMeta),
    /// An endpoint goes. Calls that it has go on.
    Remove(Arc<str>),
}

/// Endpoints that come and go while calls are made, and the handle to change and watch them.
///
/// Clones are the same set, and [`balance`](Self::balance) makes services over it. A change is there for the next
/// call; calls under way keep their endpoint, also when it leaves. Endpoints that stay keep their state.
///
/// A change costs time in proportion to the set, and with Maglev that of a new table: several
/// at once ([`apply`](Self::apply), [`replace`](Self::replace)) are cheaper than one after the other.
///
/// ```
/// use http::{Request, Response};
/// use tower::{Layer, Service, service_fn};
/// use tower_plugins_layers::{BoxError, LoadLayer};
/// use tower_plugins_layers::balance::{EndpointMeta, EndpointSet, Strategy};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let endpoint = |name: &'static str| {
///     LoadLayer::new().layer(service_fn(move |_: Request<()>| async move {
///         Ok::<_, BoxError>(Response::new(String::from(name)))
///     }))
/// };
/// let set = EndpointSet::new(Strategy::PeakEwma);
/// let mut balance = set.balance();
/// assert!(balance.call(Request::new(())).await.is_err());
///
/// set.insert("a", endpoint("a"), EndpointMeta::new());
/// assert!(balance.call(Request::new(())).await.is_ok());
/// assert_eq!(set.status(tokio::time::Instant::now())[0].picks, 1);
/// # });
/// ```
pub struct EndpointSet<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    now: ArcSwap<Snapshot<S>>,
    /// Held by the one who changes it.
    change: Mutex<()>,
}

impl<S> EndpointSet<S> {
    /// An empty set, picked from by `policy`.
    #[must_use]
    pub fn new(policy: impl Into<BalancePolicy>) -> Self {
        let empty = Snapshot::new(policy.into(), Vec::new());
        Self {
            shared: Arc::new(Shared {
                now: ArcSwap::from_pointee(empty),
                change: Mutex::new(()),
            }),
        }
    }

    /// A service over the set.
    #[must_use]
    pub fn balance(&self) -> LiveBalance<S> {
        LiveBalance::new(self.clone())
    }

    /// Puts an endpoint in, or in the place of the one with the same key, whose state is gone then.
    pub fn insert(&self, key: impl Into<Arc<str>>, member: S, meta: EndpointMeta) {
        self.apply([Change::Insert(key.into(), member, meta)]);
    }

    /// Takes an endpoint out, and says whether there was one. Calls that it has go on.
    #[allow(clippy::must_use_candidate, reason = "it is called for what it does")]
    pub fn remove(&self, key: &str) -> bool {
        self.edit(|slots| {
            let before = slots.len();
            slots.retain(|slot| *slot.core.key != *key);
            slots.len() < before
        })
    }

    /// Changes what is said of an endpoint, which keeps its state; says whether there is one.
    #[allow(clippy::must_use_candidate, reason = "it is called for what it does")]
    pub fn update(&self, key: &str, meta: EndpointMeta) -> bool {
        self.edit(|slots| {
            let slot = slots.iter_mut().find(|slot| *slot.core.key == *key);
            slot.map(|slot| slot.meta = meta).is_some()
        })
    }

    /// Makes several changes, in their order, at once.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change<S>>) {
        self.edit(|slots| {
            for change in changes {
                match change {
                    Change::Insert(key, member, meta) => {
                        let at = slots.iter().position(|slot| slot.core.key == key);
                        let core = Arc::new(Core::new(key, member));
                        let slot = Slot { core, meta };
                        match at {
                            Some(at) => slots[at] = slot,
                            None => slots.push(slot),
                        }
                    }
                    Change::Remove(key) => slots.retain(|slot| slot.core.key != key),
                }
            }
        });
    }

    /// Makes the set that of `endpoints`: those that are in it already keep their state, others are made by `make`, and
    /// the rest leave.
    pub fn replace<K: Into<Arc<str>>>(
        &self,
        endpoints: impl IntoIterator<Item = (K, EndpointMeta)>,
        mut make: impl FnMut(&str, &EndpointMeta) -> S,
    ) {
        self.edit(|slots| {
            let old = std::mem::take(slots);
            let mut seen = HashSet::new();
            let mut old: HashMap<_, _> = old
                .into_iter()
                .map(|slot| (Arc::clone(&slot.core.key), slot.core))
                .collect();
            for (key, meta) in endpoints {
                let key = key.into();
                // Of a key that comes twice the first counts.
                if !seen.insert(Arc::clone(&key)) {
                    continue;
                }
                let core = old.remove(&key).unwrap_or_else(|| {
                    let member = make(&key, &meta);
                    Arc::new(Core::new(key, member))
                });
                slots.push(Slot { core, meta });
            }
        });
    }

    /// Makes the changes of a stream until it ends, those that are there at once together.
    ///
    /// Whoever polls this owns it: to stop, drop it. The set stays as it is then, and nothing is half done, as
    /// a change is made between two polls of the stream.
    pub async fn follow(&self, changes: impl Stream<Item = Change<S>>) {
        let mut changes = pin!(changes);
        let mut ready = Vec::new();
        loop {
            let more = poll_fn(|cx| {
                while ready.len() < MOST_AT_ONCE {
                    match changes.as_mut().poll_next(cx) {
                        Poll::Ready(Some(change)) => ready.push(change),
                        Poll::Ready(None) => return Poll::Ready(false),
                        Poll::Pending if ready.is_empty() => return Poll::Pending,
                        Poll::Pending => break,
                    }
                }
                Poll::Ready(true)
            });
            let more = more.await;
            if !ready.is_empty() {
                self.apply(ready.drain(..));
            }
            if !more {
                return;
            }
        }
    }

    /// How many endpoints there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.now.load().slots().len()
    }

    /// Whether there is no endpoint.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One change at a time; calls do not wait for it.
    fn edit<T>(&self, edit: impl FnOnce(&mut Vec<Slot<S>>) -> T) -> T {
        let _guard = self
            .shared
            .change
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let old = self.shared.now.load_full();
        let mut slots = old.slots().to_vec();
        let result = edit(&mut slots);
        let new = Snapshot::new(old.policy().clone(), slots);
        self.shared.now.store(Arc::new(new));
        result
    }

    /// What tells it from other sets while it is there.
    pub(super) fn place(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// Looks at the set as it is.
    pub(super) fn with<T>(&self, look: impl FnOnce(&Snapshot<S>) -> T) -> T {
        look(&self.shared.now.load())
    }
}

/// Changes that are made together, when a stream has so many.
const MOST_AT_ONCE: usize = 1024;

impl<S: Member> EndpointSet<S> {
    /// The endpoints, as they are at `now`.
    #[must_use]
    pub fn status(&self, now: Instant) -> Vec<EndpointStatus> {
        self.with(|set| set.status(now))
    }

    /// The levels by priority and zone, and what part of the calls each gets.
    #[must_use]
    pub fn levels(&self, now: Instant) -> Vec<LevelStatus> {
        self.with(|set| set.levels(now))
    }
}

impl<S> Clone for EndpointSet<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S> fmt::Debug for EndpointSet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.shared.now.load();
        let keys = set.slots().iter().map(|slot| &slot.core.key);
        f.debug_set().entries(keys).finish()
    }
}
