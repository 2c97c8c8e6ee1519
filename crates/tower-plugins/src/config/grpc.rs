//! `grpc`.

use super::blocks::Overlay;
use super::endpoints::Transport;
use super::table::Table;
use super::{Compression, GrpcSpec};

pub(super) const COMPRESSIONS: [(&str, Compression); 2] =
    [("off", Compression::Off), ("gzip", Compression::Gzip)];

/// What hosts of HashiCorp's go-plugin take of their plugins.
const MOST_OF_A_PLUGIN: u32 = i32::MAX.unsigned_abs();

/// What is not said depends on the transport.
#[derive(Clone, Default)]
pub(super) struct Grpc {
    max_request_message: Option<u32>,
    max_response_message: Option<u32>,
    compression: Option<Compression>,
}

impl Overlay for Grpc {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let mut size = |key, base| {
            let size = table.size(key).and_then(|size| u32::try_from(size).ok());
            size.or(base)
        };
        Self {
            max_request_message: size("max_request_message", self.max_request_message),
            max_response_message: size("max_response_message", self.max_response_message),
            compression: table
                .word("compression", &COMPRESSIONS)
                .or(self.compression),
        }
    }
}

impl Grpc {
    /// Of a plugin that speaks gRPC.
    pub(super) fn armed(&self, transport: Option<&Transport>) -> Option<GrpcSpec> {
        let library = match transport? {
            Transport::Subprocess => GrpcSpec::of_process(),
            transport if transport.is_grpc() => GrpcSpec::default(),
            _ => return None,
        };
        Some(GrpcSpec {
            max_request_message: self
                .max_request_message
                .unwrap_or(library.max_request_message),
            max_response_message: self
                .max_response_message
                .unwrap_or(library.max_response_message),
            compression: self.compression.unwrap_or(library.compression),
        })
    }
}

impl GrpcSpec {
    /// Where nobody says anything, of a plugin that is a process.
    pub(super) fn of_process() -> Self {
        Self {
            max_request_message: MOST_OF_A_PLUGIN,
            max_response_message: MOST_OF_A_PLUGIN,
            ..Self::default()
        }
    }
}
