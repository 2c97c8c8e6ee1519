//! `grpc`.

/// `grpc`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct GrpcSpec {
    /// The largest message that is sent, in bytes on the wire.
    pub max_request_message: u32,
    /// The largest message that is received, in bytes on the wire.
    pub max_response_message: u32,
    /// How typed calls are sent.
    pub compression: Compression,
}

/// `grpc.compression`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// `off`: as they are.
    #[default]
    Off,
    /// `gzip`.
    Gzip,
}
