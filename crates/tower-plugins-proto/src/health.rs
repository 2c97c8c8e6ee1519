//! The messages of `grpc.health.v1.Health`, the health service that every gRPC server may have.
//!
//! They are written by hand, as there are two and they never change. A server takes its own from `tonic-health`.
//!
//! ```
//! use tower_plugins_proto::health::{HealthCheckRequest, HealthCheckResponse, ServingStatus};
//!
//! let request = HealthCheckRequest { service: "search.v1.Search".into() };
//! assert_eq!(request.to_bytes()[..2], [0x0a, 16]);
//! let response = HealthCheckResponse::from_bytes(&[0x08, 1])?;
//! assert_eq!(response.status(), ServingStatus::Serving);
//! # Ok::<(), tower_plugins_proto::health::DecodeError>(())
//! ```

/// What is no message.
pub use prost::DecodeError;
use prost::Message;

/// The path of the call that asks once.
pub const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The path of the call that asks once and is told of each change.
pub const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Asks how a service is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HealthCheckRequest {
    /// Its full name; empty for the server as a whole.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// How a service is.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HealthCheckResponse {
    /// A [`ServingStatus`].
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}

/// Whether a service takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ServingStatus {
    /// It is not known.
    Unknown = 0,
    /// It does.
    Serving = 1,
    /// It does not.
    NotServing = 2,
    /// `Watch` knows no such service, yet.
    ServiceUnknown = 3,
}

impl HealthCheckRequest {
    /// As it stands on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl HealthCheckResponse {
    /// Of what stands on the wire.
    ///
    /// # Errors
    /// If it is no such message.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(bytes)
    }
}
