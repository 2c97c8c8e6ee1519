//! Header names that are looked for in every call, made once.

use http::HeaderName;

pub(crate) static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub(crate) static GRPC_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
pub(crate) static GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The name that a policy's text has, if it has one.
#[cfg(feature = "serde")]
pub(crate) fn parsed(name: Option<&str>) -> Result<Option<HeaderName>, String> {
    name.map(|name| {
        name.parse()
            .map_err(|_| format!("`{name}` is not the name of a header"))
    })
    .transpose()
}
