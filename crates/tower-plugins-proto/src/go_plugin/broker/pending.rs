//! Who offered a connection, and who waits for one.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// Offers that nobody took yet, and takers that wait for an offer: of each id one or the other, and one at most.
///
/// It is told the time, and does nothing by itself. An offer that nobody takes within `kept` is gone.
#[derive(Debug)]
pub(super) struct Pending<T, W> {
    slots: HashMap<u32, Slot<T, W>>,
    /// The offers, the oldest first, and when each is gone.
    gone: VecDeque<(Instant, u32)>,
    next_ticket: u64,
    limit: usize,
    kept: Duration,
}

#[derive(Debug)]
enum Slot<T, W> {
    Offered(T, Instant),
    Wanted(W, Ticket),
}

/// Names one waiting taker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// What became of an offer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered<T, W> {
    /// It waits for its taker.
    Kept,
    /// It goes to this one, who waited.
    Taken(T, W),
    /// There is one with its id already.
    Twice,
    /// There are too many.
    Full,
}

/// What a taker gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted<T> {
    /// The offer, which was there.
    Found(T),
    /// A ticket: the offer is not there yet.
    Waits(Ticket),
    /// Nothing: there is another taker.
    Twice,
    /// Nothing: there are too many.
    Full,
}

impl<T, W> Pending<T, W> {
    pub(super) fn new(limit: usize, kept: Duration) -> Self {
        Self {
            slots: HashMap::new(),
            gone: VecDeque::new(),
            next_ticket: 0,
            limit,
            kept,
        }
    }

    /// The other side offers `id`.
    pub(super) fn offer(&mut self, id: u32, offer: T, now: Instant) -> Offered<T, W> {
        self.forget_old(now);
        let full = self.slots.len() >= self.limit;
        match self.slots.entry(id) {
            Entry::Occupied(slot) => match slot.remove() {
                Slot::Wanted(taker, _) => Offered::Taken(offer, taker),
                kept @ Slot::Offered(..) => {
                    self.slots.insert(id, kept);
                    Offered::Twice
                }
            },
            Entry::Vacant(_) if full => Offered::Full,
            Entry::Vacant(slot) => {
                let gone = now + self.kept;
                slot.insert(Slot::Offered(offer, gone));
                self.gone.push_back((gone, id));
                Offered::Kept
            }
        }
    }

    /// `taker` wants `id`.
    pub(super) fn want(&mut self, id: u32, taker: W, now: Instant) -> Wanted<T> {
        self.forget_old(now);
        let full = self.slots.len() >= self.limit;
        match self.slots.entry(id) {
            Entry::Occupied(slot) => match slot.remove() {
                Slot::Offered(offer, gone) => {
                    self.gone.retain(|other| *other != (gone, id));
                    Wanted::Found(offer)
                }
                other @ Slot::Wanted(..) => {
                    self.slots.insert(id, other);
                    Wanted::Twice
                }
            },
            Entry::Vacant(_) if full => Wanted::Full,
            Entry::Vacant(slot) => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                slot.insert(Slot::Wanted(taker, ticket));
                Wanted::Waits(ticket)
            }
        }
    }

    /// The taker with `ticket` waits no longer. One that got its offer is not touched, nor is who came after it.
    pub(super) fn give_up(&mut self, id: u32, ticket: Ticket) {
        if let Some(Slot::Wanted(_, waiting)) = self.slots.get(&id)
            && *waiting == ticket
        {
            self.slots.remove(&id);
        }
    }

    /// Drops all offers and takers.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.gone.clear();
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((gone, id)) = self.gone.front().copied()
            && gone <= now
        {
            self.gone.pop_front();
            if matches!(self.slots.get(&id), Some(Slot::Offered(_, at)) if *at == gone) {
                self.slots.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Duration = Duration::from_secs(5);

    fn pending() -> (Pending<&'static str, &'static str>, Instant) {
        (Pending::new(3, KEPT), Instant::now())
    }

    #[test]
    fn an_offer_waits_for_its_taker_and_is_taken_once() {
        let (mut pending, now) = pending();
        assert_eq!(pending.offer(1, "here", now), Offered::Kept);
        assert_eq!(pending.want(1, "me", now), Wanted::Found("here"));
        assert!(matches!(pending.want(1, "again", now), Wanted::Waits(_)));
    }

    #[test]
    fn a_taker_waits_for_its_offer() {
        let (mut pending, now) = pending();
        assert!(matches!(pending.want(1, "me", now), Wanted::Waits(_)));
        assert_eq!(pending.want(1, "other", now), Wanted::Twice);
        assert_eq!(pending.offer(2, "not mine", now), Offered::Kept);
        assert_eq!(pending.offer(1, "mine", now), Offered::Taken("mine", "me"));
        assert_eq!(pending.offer(1, "next", now), Offered::Kept);
    }

    #[test]
    fn of_two_offers_the_first_stands() {
        let (mut pending, now) = pending();
        pending.offer(1, "first", now);
        assert_eq!(pending.offer(1, "second", now), Offered::Twice);
        assert_eq!(pending.want(1, "me", now), Wanted::Found("first"));
    }

    #[test]
    fn an_offer_that_nobody_takes_is_gone_after_its_time() {
        let (mut pending, now) = pending();
        pending.offer(1, "old", now);
        pending.offer(2, "newer", now + KEPT / 2);
        assert_eq!(pending.offer(1, "new", now + KEPT), Offered::Kept);
        // The time of the old one is not that of the new one.
        let later = now + KEPT + KEPT / 2;
        assert_eq!(pending.want(1, "me", later), Wanted::Found("new"));
        assert!(matches!(pending.want(2, "me", later), Wanted::Waits(_)));
        assert!(pending.gone.is_empty());
    }

    #[test]
    fn there_are_never_more_than_the_limit() {
        let (mut pending, now) = pending();
        pending.offer(1, "a", now);
        pending.want(2, "me", now);
        pending.offer(3, "c", now);
        assert_eq!(pending.offer(4, "d", now), Offered::Full);
        assert_eq!(pending.want(4, "me", now), Wanted::Full);
        // What is there already is still found, and what is gone makes room.
        assert_eq!(pending.want(1, "me", now), Wanted::Found("a"));
        assert_eq!(pending.offer(4, "d", now), Offered::Kept);
        assert_eq!(pending.offer(5, "e", now + KEPT), Offered::Kept);
        assert_eq!((pending.slots.len(), pending.gone.len()), (2, 1));
    }

    #[test]
    fn who_gives_up_leaves_those_after_it_alone() {
        let (mut pending, now) = pending();
        let Wanted::Waits(first) = pending.want(1, "first", now) else {
            panic!("there was an offer");
        };
        pending.give_up(1, first);
        assert!(matches!(pending.want(1, "second", now), Wanted::Waits(_)));
        pending.give_up(1, first);
        assert_eq!(
            pending.offer(1, "here", now),
            Offered::Taken("here", "second")
        );
    }
}
