//! `grpc`.

use super::blocks::Overlay;
use super::table::Table;
use super::{Compression, GrpcSpec};

pub(super) const COMPRESSIONS: [(&str, Compression); 2] =
    [("off", Compression::Off), ("gzip", Compression::Gzip)];

impl Overlay for GrpcSpec {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let mut size = |key, base| {
            let size = table.size(key).and_then(|size| u32::try_from(size).ok());
            size.unwrap_or(base)
        };
        Self {
            max_request_message: size("max_request_message", self.max_request_message),
            max_response_message: size("max_response_message", self.max_response_message),
            compression: table
                .word("compression", &COMPRESSIONS)
                .unwrap_or(self.compression),
        }
    }
}
