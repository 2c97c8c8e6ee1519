//! `grpc`.

use super::super::GrpcSpec;
use super::super::grpc::COMPRESSIONS;
use super::super::tree::Node;
use super::values::{size, table, word};

pub(super) fn grpc(spec: &GrpcSpec) -> Node<'static> {
    table([
        ("max_request_message", size(spec.max_request_message.into())),
        (
            "max_response_message",
            size(spec.max_response_message.into()),
        ),
        ("compression", word(&COMPRESSIONS, &spec.compression)),
    ])
}
