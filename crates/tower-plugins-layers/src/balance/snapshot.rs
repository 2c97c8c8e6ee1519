use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::Request;
use tokio::time::Instant;

use super::pick::{Nobody, Picker, Wanted};
use super::{BalancePolicy, EndpointMeta, EndpointStatus, LevelStatus, Member};
use crate::{BoxError, CallContext, Reason, Refused, RequestHead};

/// An endpoint and what is counted of it, for as long as it is in a set or has calls.
#[derive(Debug)]
pub(super) struct Core<S> {
    pub(super) key: Arc<str>,
    /// No other endpoint of the program has or had the same. Above 0.
    pub(super) id: u64,
    pub(super) member: S,
    picks: AtomicU64,
}

impl<S> Core<S> {
    pub(super) fn new(key: Arc<str>, member: S) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            key,
            id: NEXT.fetch_add(1, Relaxed),
            member,
            picks: AtomicU64::new(0),
        }
    }
}

/// An endpoint's place in a set.
#[derive(Debug)]
pub(super) struct Slot<S> {
    pub(super) core: Arc<Core<S>>,
    pub(super) meta: EndpointMeta,
}

impl<S> Clone for Slot<S> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            meta: self.meta.clone(),
        }
    }
}

/// Endpoints that never change, and all that picks one of them.
#[derive(Debug)]
pub(super) struct Snapshot<S> {
    slots: Box<[Slot<S>]>,
    picker: Picker,
}

impl<S> Snapshot<S> {
    pub(super) fn new(policy: BalancePolicy, slots: Vec<Slot<S>>) -> Self {
        let endpoints: Vec<_> = slots
            .iter()
            .map(|slot| (&*slot.core.key, &slot.meta))
            .collect();
        Self {
            picker: Picker::new(policy, &endpoints),
            slots: slots.into(),
        }
    }

    pub(super) const fn slots(&self) -> &[Slot<S>] {
        &self.slots
    }

    pub(super) const fn policy(&self) -> &BalancePolicy {
        self.picker.policy()
    }
}

impl<S: Member> Snapshot<S> {
    /// A member for a call that has been offered to those `tried`.
    pub(super) fn pick<B>(&self, request: &Request<B>, tried: &[u64]) -> Result<&Core<S>, Nobody> {
        self.place(request, tried).map(|slot| &*slot.core)
    }

    /// The same, with its place.
    pub(super) fn place<B>(&self, request: &Request<B>, tried: &[u64]) -> Result<&Slot<S>, Nobody> {
        let context = CallContext::of(request);
        let visited = context.and_then(CallContext::visited);
        let avoid = visited.map(|visited| visited.ids());
        let wanted = Wanted {
            head: RequestHead::of(request),
            now: context.map_or_else(Instant::now, CallContext::attempt_start),
            tried,
            retry: context.is_some_and(|context| context.attempt() > 0),
            avoid: avoid.as_ref().map_or(&[], |ids| ids),
        };
        let slot = match context.and_then(CallContext::get_endpoint) {
            None => &self.slots[self.picker.pick(&self.slots, &wanted)?],
            Some(key) => self.only(key, tried)?,
        };
        slot.core.picks.fetch_add(1, Relaxed);
        if let Some(visited) = visited {
            visited.add(slot.core.id);
        }
        Ok(slot)
    }

    /// The endpoint with this key, which says for itself why it does not take the call.
    fn only(&self, key: &str, tried: &[u64]) -> Result<&Slot<S>, Nobody> {
        let mut slots = self.slots.iter();
        let slot = slots.find(|slot| &*slot.core.key == key);
        let slot = slot.ok_or(Nobody::Subset)?;
        if tried.contains(&slot.core.id) {
            return Err(Nobody::OnlyOne);
        }
        Ok(slot)
    }

    /// The call of `request` was picked for the endpoint `id`, and came back from it without having been sent.
    pub(super) fn came_back<B>(&self, id: u64, request: &Request<B>) {
        if let Some(slot) = self.slots.iter().find(|slot| slot.core.id == id) {
            slot.core.picks.fetch_sub(1, Relaxed);
        }
        if let Some(visited) = CallContext::of(request).and_then(CallContext::visited) {
            visited.remove(id);
        }
    }

    /// Whether nobody would take an attempt beyond a call's first, though some would take a first one.
    pub(super) fn is_exhausted(&self) -> bool {
        let now = Instant::now();
        let available = || self.members().filter(|member| member.is_available(now));
        available().next().is_some() && !available().any(|member| member.takes_retry(now))
    }

    /// The error of a call that nobody takes, the last of them because of `cause`.
    pub(super) fn refusal(&self, nobody: Nobody, cause: Option<BoxError>) -> BoxError {
        let mut refused = Refused::new(Reason::NoEndpoint);
        if nobody == Nobody::Available {
            let now = Instant::now();
            let waits = self.members().filter_map(|member| member.retry_after(now));
            if let Some(wait) = waits.min() {
                refused = refused.retry_after(wait);
            }
        }
        match cause {
            Some(cause) if nobody == Nobody::OnlyOne => cause,
            // The last was there, and was not to be asked again.
            Some(cause) if Reason::of(&*cause) == Some(Reason::RetryBudget) => cause,
            _ if nobody == Nobody::Retries => Refused::new(Reason::RetryBudget).into(),
            Some(cause) => refused.caused_by(cause).into(),
            None => refused.into(),
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &S> {
        self.slots.iter().map(|slot| &slot.core.member)
    }

    pub(super) fn status(&self, now: Instant) -> Vec<EndpointStatus> {
        let status = |slot: &Slot<S>| {
            let member = &slot.core.member;
            EndpointStatus {
                key: Arc::clone(&slot.core.key),
                meta: slot.meta.clone(),
                available: member.is_available(now),
                ejected: member.is_ejected(now),
                ramp: member.ramp(now),
                in_flight: member.in_flight(),
                rtt: member.rtt(now),
                picks: slot.core.picks.load(Relaxed),
            }
        };
        self.slots.iter().map(status).collect()
    }

    pub(super) fn levels(&self, now: Instant) -> Vec<LevelStatus> {
        self.picker.levels(&self.slots, now)
    }
}
