use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::time::Instant;
use tower_plugins_layers::{BoxError, CallContext, Priority};

use crate::Body;

/// The largest response that a typed call reads, unless it says otherwise: 16 MiB.
const MAX_RESPONSE: usize = 16 << 20;

/// What a caller says of a typed call beside its request.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) headers: HeaderMap,
    pub(super) timeout: Option<Duration>,
    pub(super) priority: Option<Priority>,
    pub(super) max_response: usize,
    invalid: Option<BoxError>,
}

/// What a caller may say of either kind of call, which has its [`Options`] in a field of that name.
macro_rules! setters {
    (timeout: $timeout:literal, max_response: $max_response:literal) => {
        #[doc = $timeout]
        pub const fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.timeout = Some(timeout);
            self
        }

        /// How much it matters that the call goes through, where the plugin has a `concurrency` limit: the calls of
        /// less importance are shed first, with [`Reason::Shed`](crate::Reason::Shed). It counts before what
        /// `concurrency.priority_header` says; without either the call is [`Priority::Normal`]. The plugin is not told.
        ///
        /// [`Priority::Normal`]: tower_plugins_layers::Priority::Normal
        pub const fn priority(mut self, priority: tower_plugins_layers::Priority) -> Self {
            self.options.priority = Some(priority);
            self
        }

        /// Adds a header. A name or value that is none is this call's error.
        pub fn header<N, V>(mut self, name: N, value: V) -> Self
        where
            N: TryInto<http::HeaderName, Error: Into<tower_plugins_layers::BoxError>>,
            V: TryInto<http::HeaderValue, Error: Into<tower_plugins_layers::BoxError>>,
        {
            self.options.header(name, value);
            self
        }

        /// Names the call, in the header `x-request-id`.
        pub fn request_id(mut self, id: &str) -> Self {
            self.options.only("x-request-id", id);
            self
        }

        #[doc = $max_response]
        pub const fn max_response(mut self, bytes: usize) -> Self {
            self.options.max_response = bytes;
            self
        }
    };
}
pub(super) use setters;

impl Options {
    pub(super) fn new() -> Self {
        Self {
            headers: HeaderMap::new(),
            timeout: None,
            priority: None,
            max_response: MAX_RESPONSE,
            invalid: None,
        }
    }

    pub(super) fn header<N, V>(&mut self, name: N, value: V)
    where
        N: TryInto<HeaderName, Error: Into<BoxError>>,
        V: TryInto<HeaderValue, Error: Into<BoxError>>,
    {
        match (name.try_into(), value.try_into()) {
            (Ok(name), Ok(value)) => {
                self.headers.append(name, value);
            }
            (Err(error), _) => self.invalid = Some(error.into()),
            (_, Err(error)) => self.invalid = Some(error.into()),
        }
    }

    /// The one value of the header `name`.
    pub(super) fn only(&mut self, name: &'static str, value: &str) {
        self.headers.remove(name);
        self.header(name, value);
    }

    /// When the call is over, if the caller has said and it begins now.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let at = |timeout| Instant::now().checked_add(timeout);
        self.timeout.and_then(at)
    }

    /// Takes what has passed since `begun` from the call's time, if its plugin was waited for.
    pub(super) fn waited(&mut self, begun: Instant) {
        let waited = begun.elapsed();
        if waited >= Duration::from_millis(1) {
            self.timeout = self.timeout.map(|timeout| timeout.saturating_sub(waited));
        }
    }

    /// A call of `path` with all this, and with nothing in it yet.
    pub(super) fn request(
        &mut self,
        method: &http::Method,
        path: &str,
        idempotent: bool,
    ) -> Result<Request<Body>, BoxError> {
        if let Some(error) = self.invalid.take() {
            return Err(error);
        }
        // Without the slash it would be a host.
        if !path.starts_with('/') {
            return Err(format!("the method's path must begin with /, and is {path:?}").into());
        }
        let mut request = Request::builder()
            .method(method.clone())
            .uri(http::Uri::try_from(path)?)
            .body(Body::empty())?;
        *request.headers_mut() = std::mem::take(&mut self.headers);
        let mut context = CallContext::new().idempotent(idempotent);
        if let Some(at) = self.deadline() {
            context = context.own_deadline(at);
        }
        if let Some(priority) = self.priority {
            context = context.priority(priority);
        }
        context.attach(&mut request);
        Ok(request)
    }
}
