//! `health_check`.

use std::collections::BTreeSet;
use std::time::Duration;

use http::uri::PathAndQuery;

use super::super::Number;

/// `health_check`: how each endpoint is asked how it is, beside the calls.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthSpec {
    /// What is asked (`kind`).
    pub kind: HealthKind,
    /// From the end of a check to the next.
    pub interval: Duration,
    /// The same, after a check that failed; `None` is `interval`.
    pub unhealthy_interval: Option<Duration>,
    /// Up to this share is added to each interval at random (0 to 1).
    pub jitter: Number,
    /// How long a check may take.
    pub timeout: Duration,
    /// Failures in a row that take an endpoint out.
    pub failure_limit: u32,
    /// Successes in a row that bring it back.
    pub healthy_threshold: u32,
    /// An endpoint whose answer takes longer is degraded; `None` for none.
    pub degraded_after: Option<Duration>,
}

/// `health_check.kind`, with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HealthKind {
    /// `http`: a GET.
    Http {
        /// What is asked for (`endpoint`).
        path: PathAndQuery,
        /// The statuses that are well.
        statuses: BTreeSet<u16>,
    },
    /// `grpc`: `Check` of `grpc.health.v1.Health`.
    Grpc {
        /// Which service is asked about; empty for the server as a whole.
        service: String,
    },
    /// `grpc-watch`: `Watch` of `grpc.health.v1.Health`.
    GrpcWatch {
        /// As for `grpc`.
        service: String,
    },
    /// `tcp`: whether a connection can be opened.
    Tcp,
    /// `process`: whether the process lives.
    Process,
}

impl HealthKind {
    /// A GET of `/health`, which is well with any status from 200 to 299.
    #[must_use]
    pub fn http() -> Self {
        Self::Http {
            path: PathAndQuery::from_static("/health"),
            statuses: (200..300).collect(),
        }
    }
}
