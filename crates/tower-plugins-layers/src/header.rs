//! Header names that are looked for in every call, made once.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};

pub(crate) static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub(crate) static GRPC_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
pub(crate) static GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The content type, if there is one.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<&[u8]> {
    // Services of the same program often have no headers, and looking one up costs more than this.
    if headers.is_empty() {
        return None;
    }
    headers.get(CONTENT_TYPE).map(AsRef::as_ref)
}

/// The name that a policy's text has, if it has one.
#[cfg(feature = "serde")]
pub(crate) fn parsed(name: Option<&str>) -> Result<Option<HeaderName>, String> {
    name.map(|name| {
        name.parse()
            .map_err(|_| format!("`{name}` is not the name of a header"))
    })
    .transpose()
}
