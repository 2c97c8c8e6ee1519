use super::{Block, Kind, key};

/// What a gRPC length can say.
const LONGEST: u64 = u32::MAX as u64;

pub(in super::super) static GRPC: Block = Block {
    name: "grpc",
    about: "For `transport: grpc`, `grpc-tls` and `subprocess`. The sizes are those of messages on the wire, read in the length that \
            stands before each: a message that is larger ends the call before its bytes are kept anywhere. They hold \
            for every call that speaks gRPC, a generated client's and typed ones; `compression` is of typed calls and \
            `Plugin::info`.",
    keys: &[
        key(
            "max_request_message",
            Kind::Size(1, LONGEST),
            "4MiB; 2GiB with `subprocess`",
            r#""16MiB""#,
            "the largest message that is sent; a larger one ends the call as `request_too_large`, `RESOURCE_EXHAUSTED`. 4MiB is what gRPC servers take unless they are told otherwise, plugins of go-plugin among them",
        ),
        key(
            "max_response_message",
            Kind::Size(1, LONGEST),
            "4MiB; 2GiB with `subprocess`",
            r#""16MiB""#,
            "the largest message that is received; a larger one ends the call as `response_too_large`, `RESOURCE_EXHAUSTED`. 4MiB is what gRPC clients take unless they are told otherwise; hosts of go-plugin in Go take 2GiB less a byte",
        ),
        key(
            "compression",
            Kind::Word(&["off", "gzip"]),
            "off",
            r#""gzip""#,
            "`gzip`: typed calls are sent compressed, and compressed answers are taken. Time for bytes: of use on a slow network only",
        ),
    ],
    gone: &[],
};
