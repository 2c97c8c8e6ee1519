//! Who accepts which connection on the one socket, and whose the next stream is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use tokio::time::Instant;

/// The knocks of the other side, and the one of this side.
///
/// A stream does not say which connection it is: a knock does, before it, and the next stream is that one. So each side asks for one at a
/// time, and a new knock means that the one before is over.
#[derive(Debug)]
pub(super) struct Knocks<C, A> {
    /// Where the streams of each connection go.
    acceptors: HashMap<u32, C>,
    /// A knock that nobody accepts yet, and when it is too late.
    early: Option<(u32, Instant)>,
    /// Whose the next stream is.
    next: Option<u32>,
    /// The connection that this side knocked for, and who waits for the answer.
    asked: Option<(u32, A)>,
    limit: usize,
    kept: Duration,
}

/// Why a connection cannot be accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotAccepted {
    /// It is already.
    Twice,
    /// Too many are.
    Full,
}

impl<C, A> Knocks<C, A> {
    pub(super) fn new(limit: usize, kept: Duration) -> Self {
        Self {
            acceptors: HashMap::new(),
            early: None,
            next: None,
            asked: None,
            limit,
            kept,
        }
    }

    /// `acceptor` takes the streams of `id` from now on. `true` if there was a knock, which is to be answered now.
    pub(super) fn accept(
        &mut self,
        id: u32,
        acceptor: C,
        now: Instant,
    ) -> Result<bool, NotAccepted> {
        let full = self.acceptors.len() >= self.limit;
        match self.acceptors.entry(id) {
            Entry::Occupied(_) => return Err(NotAccepted::Twice),
            Entry::Vacant(_) if full => return Err(NotAccepted::Full),
            Entry::Vacant(entry) => entry.insert(acceptor),
        };
        let knocked = self
            .early
            .is_some_and(|(early, late)| early == id && now < late);
        if knocked {
            self.early = None;
            self.next = Some(id);
        }
        Ok(knocked)
    }

    /// Nobody takes the streams of `id` any more.
    pub(super) fn stop(&mut self, id: u32) {
        self.acceptors.remove(&id);
    }

    /// The other side knocks for `id`. `true` if that is to be answered now: the next stream is its.
    pub(super) fn knock(&mut self, id: u32, now: Instant) -> bool {
        let accepted = self.acceptors.contains_key(&id);
        self.next = accepted.then_some(id);
        self.early = (!accepted).then_some((id, now + self.kept));
        accepted
    }

    /// A stream came: `None` if nobody knocked for it, and else who takes it, if anybody still does.
    pub(super) fn stream(&mut self) -> Option<Option<&C>> {
        let id = self.next.take()?;
        Some(self.acceptors.get(&id))
    }

    /// This side knocks for `id`; `asker` waits for the answer.
    pub(super) fn ask(&mut self, id: u32, asker: A) {
        self.asked = Some((id, asker));
    }

    /// The other side answers for `id`: who waited for that.
    pub(super) fn answer(&mut self, id: u32) -> Option<A> {
        let (_, asker) = self.asked.take_if(|(asked, _)| *asked == id)?;
        Some(asker)
    }

    /// Drops all who accept, and who waits.
    pub(super) fn clear(&mut self) {
        self.acceptors.clear();
        self.asked = None;
        self.early = None;
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Duration = Duration::from_secs(5);

    fn knocks() -> (Knocks<&'static str, &'static str>, Instant) {
        (Knocks::new(2, KEPT), Instant::now())
    }

    #[test]
    fn a_stream_is_of_the_knock_before_it() {
        let (mut knocks, now) = knocks();
        assert_eq!(knocks.accept(1, "one", now), Ok(false));
        assert_eq!(knocks.accept(2, "two", now), Ok(false));
        assert_eq!(knocks.stream(), None);
        assert!(knocks.knock(2, now));
        assert_eq!(knocks.stream(), Some(Some(&"two")));
        assert_eq!(knocks.stream(), None);
    }

    #[test]
    fn of_two_knocks_the_first_is_over() {
        let (mut knocks, now) = knocks();
        knocks.accept(1, "one", now).unwrap();
        knocks.accept(2, "two", now).unwrap();
        assert!(knocks.knock(1, now));
        assert!(knocks.knock(2, now));
        assert_eq!(knocks.stream(), Some(Some(&"two")));
        assert_eq!(knocks.stream(), None);
        // One for nobody is the newest, too.
        assert!(knocks.knock(1, now));
        assert!(!knocks.knock(7, now));
        assert_eq!(knocks.stream(), None);
    }

    #[test]
    fn a_knock_waits_for_who_accepts_and_not_for_ever() {
        let (mut knocks, now) = knocks();
        assert!(!knocks.knock(1, now));
        assert_eq!(knocks.accept(2, "two", now), Ok(false));
        let soon = now + KEPT - Duration::from_millis(1);
        assert_eq!(knocks.accept(1, "one", soon), Ok(true));
        assert_eq!(knocks.stream(), Some(Some(&"one")));
        knocks.stop(1);
        assert!(!knocks.knock(1, now));
        assert_eq!(knocks.accept(1, "late", now + KEPT), Ok(false));
    }

    #[test]
    fn each_is_accepted_once_and_there_is_a_limit() {
        let (mut knocks, now) = knocks();
        knocks.accept(1, "one", now).unwrap();
        assert_eq!(knocks.accept(1, "again", now), Err(NotAccepted::Twice));
        knocks.accept(2, "two", now).unwrap();
        assert_eq!(knocks.accept(3, "three", now), Err(NotAccepted::Full));
        knocks.knock(2, now);
        knocks.stop(2);
        assert_eq!(knocks.stream(), Some(None));
        assert_eq!(knocks.accept(3, "three", now), Ok(false));
    }

    #[test]
    fn an_answer_is_for_who_asked_for_that_connection() {
        let (mut knocks, _) = knocks();
        assert_eq!(knocks.answer(1), None);
        knocks.ask(1, "me");
        assert_eq!(knocks.answer(2), None);
        assert_eq!(knocks.answer(1), Some("me"));
        assert_eq!(knocks.answer(1), None);
    }
}
