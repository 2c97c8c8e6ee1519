//! Which endpoint an attempt went to, told to whoever made it.
//!
//! A call's context goes inwards only, and a place in it that can be read from outside would be an allocation for
//! each call, of which few are repeated. Calling a service and polling its future take place on one thread: what
//! a balancer leaves there is found when either returns.

use std::cell::Cell;

thread_local! {
    /// 0 is none.
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// What `f` gives, which calls a service or polls its future, and the endpoint that the outermost balancer in it went
/// to: 0 if there is none, or if it was not asked on this thread.
#[inline]
pub(crate) fn watched<T>(f: impl FnOnce() -> T) -> (T, u64) {
    LAST.set(0);
    let made = f();
    (made, LAST.get())
}

/// A balancer's call went to this endpoint: to be said last, for an endpoint may have a balancer inside.
#[inline]
pub(crate) fn tell(id: u64) {
    LAST.set(id);
}
