use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use tokio::time::Instant;
use tower_service::Service;

use super::future::Pool;
use super::snapshot::{Core, Slot, Snapshot};
use super::{
    BalancePolicy, EndpointMeta, EndpointSet, EndpointStatus, LevelStatus, Member, ResponseFuture,
};
use crate::BoxError;

/// Sends each call to one of its members, which are always the same. See the [module](super), and [`EndpointSet`] for
/// members that come and go.
///
/// It is always ready. Cloning it shares the members; called as a value it clones the member it picks
/// and makes the clone ready, called by reference it clones nothing.
pub struct Balance<S> {
    set: Arc<Snapshot<S>>,
}

impl<S> Balance<S> {
    /// Balances over `members`, all with weight 1. Without any, each call is refused.
    ///
    /// Their keys are their numbers, so that with a hash the order of the members matters.
    #[must_use]
    pub fn new(policy: impl Into<BalancePolicy>, members: impl IntoIterator<Item = S>) -> Self {
        let members = members.into_iter().enumerate();
        Self::with_endpoints(
            policy,
            members.map(|(n, member)| (n.to_string(), member, EndpointMeta::new())),
        )
    }

    /// Balances over endpoints of which something is said, each with a key of its own.
    #[must_use]
    pub fn with_endpoints<K: Into<Arc<str>>>(
        policy: impl Into<BalancePolicy>,
        endpoints: impl IntoIterator<Item = (K, S, EndpointMeta)>,
    ) -> Self {
        let slot = |(key, member, meta): (K, S, EndpointMeta)| Slot {
            core: Arc::new(Core::new(key.into(), member)),
            meta,
        };
        let slots = endpoints.into_iter().map(slot).collect();
        Self {
            set: Arc::new(Snapshot::new(policy.into(), slots)),
        }
    }

    /// The members.
    #[must_use]
    pub fn members(&self) -> impl ExactSizeIterator<Item = &S> {
        self.set.slots().iter().map(|slot| &slot.core.member)
    }

    pub(super) fn set(&self) -> &Snapshot<S> {
        &self.set
    }
}

impl<S: Member> Balance<S> {
    /// Whether any member would take a call at `now`.
    #[must_use]
    pub fn is_available(&self, now: Instant) -> bool {
        self.members().any(|member| member.is_available(now))
    }

    /// The members, as they are at `now`.
    #[must_use]
    pub fn status(&self, now: Instant) -> Vec<EndpointStatus> {
        self.set.status(now)
    }

    /// The levels by priority and zone, and what part of the calls each gets.
    #[must_use]
    pub fn levels(&self, now: Instant) -> Vec<LevelStatus> {
        self.set.levels(now)
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
        ResponseFuture::begin(self.clone(), request)
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
        match self.pick(&request, &[]) {
            // A reference is always ready, so that the request need not be kept for later.
            Ok((id, mut member)) => ResponseFuture::call(*self, id, member.call(request)),
            Err(nobody) => ResponseFuture::refused(*self, self.refusal(nobody, None)),
        }
    }
}

/// Sends each call to one of the endpoints of an [`EndpointSet`], as they are when it is made.
///
/// It is always ready. Cloning it shares the set; each call clones the member it picks and makes the clone
/// ready, in both call forms.
pub struct LiveBalance<S> {
    set: EndpointSet<S>,
}

impl<S> LiveBalance<S> {
    pub(super) const fn new(set: EndpointSet<S>) -> Self {
        Self { set }
    }

    /// The endpoints.
    #[must_use]
    pub const fn set(&self) -> &EndpointSet<S> {
        &self.set
    }
}

impl<S> Clone for LiveBalance<S> {
    fn clone(&self) -> Self {
        Self::new(self.set.clone())
    }
}

impl<S> fmt::Debug for LiveBalance<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveBalance")
            .field("set", &self.set)
            .finish()
    }
}

impl<S, B> Service<Request<B>> for LiveBalance<S>
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
        ResponseFuture::begin(self.clone(), request)
    }
}

impl<S, B> Service<Request<B>> for &LiveBalance<S>
where
    S: Service<Request<B>> + Member + Clone,
    S::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<LiveBalance<S>, S, S::Future, B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture::begin(LiveBalance::clone(self), request)
    }
}
