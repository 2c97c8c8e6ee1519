use std::time::Duration;

use http::HeaderName;

/// What the filter sees and how it is asked. See the [module](crate::filter) for the table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(try_from = "super::text::Raw", into = "super::text::Raw")
)]
pub struct FilterPolicy {
    pub(super) headers: Vec<HeaderName>,
    pub(super) copy_headers: Vec<HeaderName>,
    pub(super) timeout: Duration,
    pub(super) fail_open: bool,
}

impl FilterPolicy {
    /// The defaults: it sees no headers, and none of its own go on.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            headers: Vec::new(),
            copy_headers: Vec::new(),
            timeout: Duration::from_secs(1),
            fail_open: false,
        }
    }

    /// The headers of the request that the filter sees.
    #[must_use]
    pub fn headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.headers = names.into_iter().collect();
        self
    }

    /// The headers of the filter's answer that go on with the request, in the place of the caller's.
    #[must_use]
    pub fn copy_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.copy_headers = names.into_iter().collect();
        self
    }

    /// How long the filter has to its response's head.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whether a call goes on when the filter could not be asked.
    #[must_use]
    pub const fn fail_open(mut self, open: bool) -> Self {
        self.fail_open = open;
        self
    }
}

impl Default for FilterPolicy {
    fn default() -> Self {
        Self::new()
    }
}
