use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, HeaderMap};
use tokio::time::Instant;

/// Who calls, and what goes with the call beside its payload. It is cheap to clone.
///
/// ```
/// use tower_plugins_sdk::router::{BoxError, Caller, Router};
///
/// async fn slow(caller: Caller) -> Result<String, BoxError> {
///     let tenant = caller.header("x-tenant").unwrap_or("nobody");
///     Ok(format!("{tenant} waits {:?} for {:?}", caller.time_left(), caller.request_id()))
/// }
/// let router = Router::new().method("slow", slow);
/// ```
#[derive(Clone)]
pub struct Caller(Arc<Said>);

/// What a caller says beside its payload.
#[derive(Default)]
pub(super) struct Said {
    pub(super) headers: HeaderMap,
    pub(super) extensions: Extensions,
    pub(super) request_id: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) deadline: Option<Instant>,
}

impl Caller {
    pub(super) fn new(said: Said) -> Self {
        Self(Arc::new(said))
    }

    /// The call's name in the logs of both sides: the header `x-request-id`, or what the envelope, the line or
    /// the message has in its place.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// When the caller stops waiting, if it has said so. The handler's future is dropped then.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// How much of that time is left.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        self.0.deadline.map(left)
    }

    /// The headers of HTTP, gRPC's metadata, or what the line has as headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The header `name`, if it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers.get(name)?.to_str().ok()
    }

    /// What is in `metadata` of the envelope, of the line's context, or of the message of gRPC.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    /// What a [layer](super::Router::layer) or the server has put into the request's extensions.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        &self.0.extensions
    }
}

/// Without the values of headers and metadata, some of which are secrets.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.0.headers.keys().collect();
        let metadata: Vec<_> = self.0.metadata.keys().collect();
        f.debug_struct("Caller")
            .field("request_id", &self.0.request_id)
            .field("deadline", &self.0.deadline)
            .field("headers", &headers)
            .field("metadata", &metadata)
            .finish_non_exhaustive()
    }
}
