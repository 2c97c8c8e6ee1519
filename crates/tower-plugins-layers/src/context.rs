//! What the layers of one call tell one another.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::Extensions;
use tokio::time::Instant;

use crate::Priority;

/// Extensions that are kept for other calls on a thread; each is some 200 bytes.
const MAX_SPARE: usize = 64;

/// The least that a caller has to wait for its leaving to be the endpoint's failure: less is its own choice, by which it
/// could have an endpoint taken for broken.
pub(crate) const FAIR: Duration = Duration::from_millis(100);

thread_local! {
    /// Extensions with a context of an old call and nothing else.
    static SPARE: RefCell<Vec<Extensions>> = const { RefCell::new(Vec::new()) };
}

/// What is known about a call, in its request's extensions.
///
/// The outermost party that knows of a call makes it; each layer uses what it needs and works
/// without it: a layer used alone reads the clock itself.
///
/// ```
/// use http::Request;
/// use tower_plugins_layers::CallContext;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let mut request = Request::new(());
/// request.extensions_mut().insert(CallContext::new().idempotent(true));
/// assert!(CallContext::of(&request).unwrap().is_idempotent());
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct CallContext {
    start: Instant,
    now: Instant,
    deadline: Option<Instant>,
    own_deadline: Option<Instant>,
    attempt_deadline: Option<Instant>,
    attempt: u32,
    idempotent: bool,
    visited: Option<Arc<Visited>>,
    priority: Option<Priority>,
    endpoint: Option<Arc<str>>,
}

impl CallContext {
    /// The context of a call that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Instant::now())
    }

    /// The context of a call that starts at `now`.
    pub(crate) const fn at(now: Instant) -> Self {
        Self {
            start: now,
            now,
            deadline: None,
            own_deadline: None,
            attempt_deadline: None,
            attempt: 0,
            idempotent: false,
            visited: None,
            priority: None,
            endpoint: None,
        }
    }

    /// The context of `request`, if somebody made one.
    #[must_use]
    pub fn of<B>(request: &http::Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    /// Puts this context into `request`'s extensions.
    ///
    /// Extensions that have nothing else are taken from those that were [detached](Self::detach) on
    /// this thread, so that a context costs no allocation.
    pub fn attach<B>(self, request: &mut http::Request<B>) {
        let extensions = request.extensions_mut();
        if extensions.is_empty()
            && let Some(mut spare) = SPARE.with_borrow_mut(Vec::pop)
            && let Some(context) = spare.get_mut::<Self>()
        {
            *context = self;
            *extensions = spare;
            return;
        }
        extensions.insert(self);
    }

    /// Takes the context out of `request`, where nobody further in looks for it.
    pub fn detach<B>(request: &mut http::Request<B>) {
        let extensions = request.extensions_mut();
        if extensions.get::<Self>().is_none() {
            return;
        }
        if extensions.len() > 1 {
            extensions.remove::<Self>();
            return;
        }
        let extensions = std::mem::take(extensions);
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MAX_SPARE {
                spare.push(extensions);
            }
        });
    }

    /// When this attempt of the call began as far as `extensions` tell; else the clock.
    #[must_use]
    pub fn now(extensions: &Extensions) -> Instant {
        extensions
            .get::<Self>()
            .map_or_else(Instant::now, |context| context.now)
    }

    /// When the call began.
    #[must_use]
    pub const fn start(&self) -> Instant {
        self.start
    }

    /// When the call must be over.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the caller has set a deadline of its own. A policy's may be earlier all the same.
    #[must_use]
    pub const fn has_own_deadline(&self) -> bool {
        self.own_deadline.is_some()
    }

    /// When this attempt must have its response's head.
    #[must_use]
    pub const fn attempt_deadline(&self) -> Option<Instant> {
        self.attempt_deadline
    }

    /// Attempts made before this one.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the caller says that the call may be repeated.
    #[must_use]
    pub const fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    /// How much it matters that the call goes through, if somebody said.
    #[must_use]
    pub const fn get_priority(&self) -> Option<Priority> {
        self.priority
    }

    /// Says how much it matters that the call goes through.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets the caller's own deadline.
    #[must_use]
    pub const fn own_deadline(mut self, at: Instant) -> Self {
        self.deadline = Some(at);
        self.own_deadline = Some(at);
        self
    }

    /// Says whether the call may be repeated.
    #[must_use]
    pub const fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Has [`Balance`](crate::Balance) write down there which endpoints the call's attempts go to, and send each to
    /// one that is not written there, as long as there is another that takes calls. The attempts of a call
    /// share it, also those that are under way at the same time.
    #[must_use]
    pub fn visits(mut self, visited: Arc<Visited>) -> Self {
        self.visited = Some(visited);
        self
    }

    /// Where the endpoints are written down that attempts of this call went to.
    #[must_use]
    pub const fn visited(&self) -> Option<&Arc<Visited>> {
        self.visited.as_ref()
    }

    /// Has [`Balance`](crate::Balance) send each attempt of the call to the endpoint whose key is `key`, whatever its strategy and
    /// subsets say; a balance that has no such endpoint refuses the call with [`Reason::NoEndpoint`](crate::Reason::NoEndpoint).
    #[must_use]
    pub fn endpoint(mut self, key: Arc<str>) -> Self {
        self.endpoint = Some(key);
        self
    }

    /// The key of the only endpoint that the call may go to, if somebody said.
    #[must_use]
    pub const fn get_endpoint(&self) -> Option<&Arc<str>> {
        self.endpoint.as_ref()
    }

    /// When this attempt began.
    pub(crate) const fn attempt_start(&self) -> Instant {
        self.now
    }

    /// The same call's next attempt, which begins at `now`.
    pub(crate) const fn begin_attempt(&mut self, attempt: u32, now: Instant) {
        self.attempt = attempt;
        self.attempt_deadline = None;
        self.now = now;
    }

    /// Tells the layers further in when this attempt must have its response's head.
    pub(crate) const fn set_attempt_deadline(&mut self, at: Instant) {
        self.attempt_deadline = Some(at);
    }

    /// When the call must be over, and the caller's own part in that, as far as they say something about who is
    /// called: a caller that waits for next to nothing says nothing.
    pub(crate) fn judged(&self) -> (Option<Instant>, Option<Instant>) {
        match self.own_deadline {
            Some(own) if self.is_in_a_hurry() => (self.deadline.filter(|at| *at != own), None),
            own => (self.deadline, own),
        }
    }

    /// Whether the caller waits for next to nothing, so that it says nothing about who is called that its time is over.
    pub(crate) fn is_in_a_hurry(&self) -> bool {
        self.own_deadline
            .is_some_and(|own| own.saturating_duration_since(self.now) < FAIR)
    }

    /// The deadline that the caller has set.
    pub(crate) const fn callers_deadline(&self) -> Option<Instant> {
        self.own_deadline
    }

    /// Tells the layers further in when the call must be over, and which deadline is the caller's.
    pub(crate) const fn set_deadline(&mut self, at: Instant, own: Option<Instant>) {
        self.deadline = Some(at);
        self.own_deadline = own;
    }

    /// Tells a balancer further in to keep the attempts apart.
    pub(crate) fn set_visited(&mut self, visited: Arc<Visited>) {
        self.visited = Some(visited);
    }

    /// Takes the time anew for the layers further in, after the call had to wait.
    pub(crate) fn waited(extensions: &mut Extensions) {
        if let Some(context) = extensions.get_mut::<Self>() {
            context.now = Instant::now();
        }
    }
}

impl Default for CallContext {
    fn default() -> Self {
        Self::new()
    }
}

/// The last few endpoints that the attempts of a call went to. See [`CallContext::visits`].
#[derive(Debug, Default)]
pub struct Visited {
    /// 0 is none.
    ids: [AtomicU64; Self::MOST],
    /// Whose place the next one takes, if none is free.
    next: AtomicUsize,
}

impl Visited {
    const MOST: usize = 4;

    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes `id` down, unless it is there.
    pub(crate) fn add(&self, id: u64) {
        if self.ids().contains(&id) {
            return;
        }
        let mut places = self.ids.iter();
        if !places.any(|place| place.compare_exchange(0, id, Relaxed, Relaxed).is_ok()) {
            let at = self.next.fetch_add(1, Relaxed) % Self::MOST;
            self.ids[at].store(id, Relaxed);
        }
    }

    /// An attempt was not made at `id` after all.
    pub(crate) fn remove(&self, id: u64) {
        for place in &self.ids {
            let _ = place.compare_exchange(id, 0, Relaxed, Relaxed);
        }
    }

    pub(crate) fn ids(&self) -> [u64; Self::MOST] {
        std::array::from_fn(|i| self.ids[i].load(Relaxed))
    }
}
