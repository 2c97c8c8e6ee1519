use std::sync::Arc;
use std::time::Duration;

use super::EndpointMeta;

/// What is known of an endpoint of a set at some moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// What it is called in its set.
    pub key: Arc<str>,
    /// Weight, priority, zone and labels.
    pub meta: EndpointMeta,
    /// Whether it would take a call: its circuit is not open.
    pub available: bool,
    /// Whether it was taken out for a time.
    pub ejected: bool,
    /// The part of its weight that counts.
    pub ramp: f64,
    /// Calls under way.
    pub in_flight: usize,
    /// How long a call is thought to take.
    pub rtt: Duration,
    /// How often it was picked since it came.
    pub picks: u64,
}

/// What is known of a level: endpoints of the same priority that are in the balancer's zone, or all that are not.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LevelStatus {
    /// Of its endpoints.
    pub priority: u32,
    /// Whether they are in other zones than the balancer.
    pub elsewhere: bool,
    /// Endpoints that are available and not ejected.
    pub usable: usize,
    /// All of its endpoints.
    pub all: usize,
    /// The part of the calls that it gets.
    pub share: f64,
    /// Whether ejection is ignored.
    pub panic: bool,
}
