use std::fmt;
use std::sync::Arc;

use http::Request;
use tokio::time::Instant;
use tower_layer::Layer;

use super::Outlier;
use super::detector::{Core, Present};
use super::future::Answered;
use super::history::History;
use crate::CallContext;
use crate::classify::{Classify, Cutoff, HttpGrpc, Outcome, Reading};
use crate::sharded::Shared;

/// Makes [`Outlier`] services, which tell of one endpoint. An [`OutlierDetector`](super::OutlierDetector)
/// makes it.
#[derive(Clone, Debug)]
pub struct OutlierLayer<C = HttpGrpc> {
    place: Option<Place>,
    classify: C,
}

/// An endpoint's place in its set.
#[derive(Clone, Debug)]
struct Place {
    seat: Shared<Seat>,
    _present: Arc<Present>,
}

/// What a call has of it.
pub(super) struct Seat {
    core: Arc<Core>,
    history: Arc<History>,
}

impl Seat {
    pub(super) fn tell(&self, outcome: Outcome) {
        match outcome {
            Outcome::Success | Outcome::Overloaded => self.history.succeeded(),
            Outcome::Failure => {
                let in_a_row = self.history.failed();
                if let Some(limit) = self.core.policy.consecutive_failures
                    && in_a_row >= limit
                {
                    self.core.failed_in_a_row(&self.history, limit);
                }
            }
            Outcome::Ignored => {}
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.history.fmt(f)
    }
}

impl OutlierLayer {
    /// Tells nobody, and its endpoint is never out.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            place: None,
            classify: HttpGrpc,
        }
    }

    pub(super) fn of(core: Arc<Core>, history: Arc<History>, present: Arc<Present>) -> Self {
        Self {
            place: Some(Place {
                seat: Shared::new(Seat { core, history }),
                _present: present,
            }),
            classify: HttpGrpc,
        }
    }
}

impl<C> OutlierLayer<C> {
    /// Sets what a failure is; [`HttpGrpc`] by default.
    #[must_use]
    pub fn classify<D: Classify>(self, classify: D) -> OutlierLayer<D> {
        OutlierLayer {
            place: self.place,
            classify,
        }
    }

    /// Whether the endpoint is out at `now`.
    #[must_use]
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.place
            .as_ref()
            .is_some_and(|place| place.seat.history.is_ejected(now))
    }

    /// When its ejection ends, if it is out and that is known.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        let until = self.place.as_ref()?.seat.history.until()?;
        (until > now).then_some(until)
    }
}

impl<C: Classify> OutlierLayer<C> {
    /// What must be told of the end of a call with `request`.
    pub(super) fn begin<B>(&self, request: &Request<B>) -> (Option<Answered<C>>, Cutoff) {
        let Some(place) = &self.place else {
            return (None, Cutoff::default());
        };
        place.seat.core.tick(CallContext::now(request.extensions()));
        let (cut, cutoff) = Cutoff::of(request);
        let watched = Answered {
            seat: Some(place.seat.hold()),
            cut,
            reading: Reading::of(request),
            classify: self.classify.clone(),
        };
        (Some(watched), cutoff)
    }
}

impl<S, C: Clone> Layer<S> for OutlierLayer<C> {
    type Service = Outlier<S, C>;

    fn layer(&self, inner: S) -> Outlier<S, C> {
        Outlier::new(inner, self.clone())
    }
}
