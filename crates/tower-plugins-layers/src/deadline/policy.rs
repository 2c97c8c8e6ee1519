use std::time::Duration;

use http::HeaderName;

use super::TimeoutHeader;

/// How long calls may take: what a [`DeadlineLayer`](super::DeadlineLayer) goes by.
///
/// | setting | default |
/// | --- | --- |
/// | [`timeout`](Self::timeout) | none |
/// | [`stream_idle`](Self::stream_idle) | none |
/// | [`header`](Self::header) | none |
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_layers::DeadlineLayer;
/// use tower_plugins_layers::deadline::DeadlinePolicy;
///
/// let policy = DeadlinePolicy::new().timeout(Duration::from_secs(2));
/// let layer = DeadlineLayer::with_policy(policy);
/// # let _ = layer;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(default, deny_unknown_fields)
)]
pub struct DeadlinePolicy {
    #[cfg_attr(
        feature = "serde",
        serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")
    )]
    pub(super) timeout: Option<Duration>,
    #[cfg_attr(
        feature = "serde",
        serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")
    )]
    pub(super) stream_idle: Option<Duration>,
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub(super) header: Option<TimeoutHeader>,
}

impl DeadlinePolicy {
    /// Only callers' own deadlines count.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            timeout: None,
            stream_idle: None,
            header: None,
        }
    }

    /// For the whole call.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Between two frames of a stream.
    #[must_use]
    pub const fn stream_idle(mut self, idle: Duration) -> Self {
        self.stream_idle = Some(idle);
        self
    }

    /// Where callers that do not speak gRPC say how long they wait.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = Some(TimeoutHeader::new(name));
        self
    }
}
