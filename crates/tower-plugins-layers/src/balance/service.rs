use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use smallvec::SmallVec;
use tokio::time::Instant;
use tower_service::Service;

use super::set::Set;
use super::{BalancePolicy, Member, ResponseFuture};
use crate::{BoxError, CallContext};

/// Sends each call to one of its members. See the [module](super).
///
/// It is always ready. Cloning it shares the members; called as a value it clones the member it picks
/// and makes the clone ready, called by reference it clones nothing.
pub struct Balance<S> {
    set: Arc<Set<S>>,
}

impl<S> Balance<S> {
    /// Balances over `members`. Without any, each call is refused.
    #[must_use]
    pub fn new(policy: BalancePolicy, members: impl IntoIterator<Item = S>) -> Self {
        Self {
            set: Arc::new(Set::new(policy, members.into_iter().collect())),
        }
    }

    /// The members.
    #[must_use]
    pub fn members(&self) -> &[S] {
        self.set.members()
    }

    pub(super) fn set(&self) -> &Set<S> {
        &self.set
    }
}

impl<S: Member> Balance<S> {
    /// Whether any member would take a call at `now`.
    #[must_use]
    pub fn is_available(&self, now: Instant) -> bool {
        self.members().iter().any(|member| member.is_available(now))
    }

    fn pick<B>(&self, request: &Request<B>) -> Option<usize> {
        let now = || CallContext::now(request.extensions());
        let Some(picks) = CallContext::of(request).and_then(CallContext::picks) else {
            return self.set.pick(now, &[]);
        };
        // A hedge goes where no other attempt of its call is, if it can.
        let taken: SmallVec<[usize; 4]> = picks.members().collect();
        let elsewhere = self.set.pick(now, &taken);
        let picked = elsewhere.or_else(|| self.set.pick(now, &[]))?;
        picks.add(picked);
        Some(picked)
    }
}

impl<S> Clone for Balance<S> {
    fn clone(&self) -> Self {
        Self {
            set: Arc::clone(&self.set),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Balance<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance").field("set", &self.set).finish()
    }
}

impl<S, B> Service<Request<B>> for Balance<S>
where
    S: Service<Request<B>> + Member + Clone,
    S::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<Self, S, S::Future, B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.pick(&request) {
            Some(index) => {
                let member = self.members()[index].clone();
                ResponseFuture::wait(self.clone(), index, member, request)
            }
            None => ResponseFuture::refused(self.clone(), self.set.refusal(None)),
        }
    }
}

impl<'a, S, B> Service<Request<B>> for &'a Balance<S>
where
    S: Member,
    &'a S: Service<Request<B>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = <&'a S as Service<Request<B>>>::Response;
    type Error = BoxError;
    type Future = ResponseFuture<Self, &'a S, <&'a S as Service<Request<B>>>::Future, B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.pick(&request) {
            // A reference is always ready, so that the request need not be kept for later.
            Some(index) => {
                ResponseFuture::call(*self, index, (&self.members()[index]).call(request))
            }
            None => ResponseFuture::refused(*self, self.set.refusal(None)),
        }
    }
}
