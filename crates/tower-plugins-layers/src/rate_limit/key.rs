use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::IntErrorKind;
use std::sync::Arc;

use http::HeaderName;

use crate::RequestHead;

type Visit = dyn Fn(&RequestHead<'_>, &mut dyn FnMut(Option<&[u8]>)) + Send + Sync;
type Count = dyn Fn(&RequestHead<'_>) -> u32 + Send + Sync;

/// Whose bucket a call draws from. Calls without a key draw from one bucket together.
///
/// ```
/// use http::HeaderName;
/// use tower_plugins_layers::rate_limit::KeyBy;
///
/// #[derive(Clone)]
/// struct Tenant(String);
///
/// let by_header = KeyBy::header(HeaderName::from_static("x-tenant"));
/// let by_tenant = KeyBy::extension(|tenant: &Tenant| tenant.0.as_bytes());
/// let by_path = KeyBy::from_fn(|head| Some(head.uri().path().to_owned()));
/// # let _ = (by_header, by_tenant, by_path);
/// ```
#[derive(Clone)]
pub struct KeyBy(Source);

#[derive(Clone)]
enum Source {
    Header(HeaderName),
    Visit(Arc<Visit>),
}

impl KeyBy {
    /// The value of a header, the first if there are several. It is the caller's word: let something in
    /// front see to it that it is true.
    #[must_use]
    pub const fn header(name: HeaderName) -> Self {
        Self(Source::Header(name))
    }

    /// Bytes of an extension, such as the name of a tenant that a layer outside has made out.
    #[must_use]
    pub fn extension<T, F>(bytes: F) -> Self
    where
        T: Send + Sync + 'static,
        F: for<'a> Fn(&'a T) -> &'a [u8] + Send + Sync + 'static,
    {
        Self::visit(move |head, with| with(head.extensions().get::<T>().map(&bytes)))
    }

    /// The address of the peer, without its port, out of an extension: with axum,
    /// `KeyBy::peer(|info: &ConnectInfo<SocketAddr>| info.0)`.
    ///
    /// Of an IPv6 address it is the first 64 bits: the rest is the peer's own to choose.
    #[must_use]
    pub fn peer<T, F>(address: F) -> Self
    where
        T: Send + Sync + 'static,
        F: Fn(&T) -> SocketAddr + Send + Sync + 'static,
    {
        Self::visit(move |head, with| {
            let Some(peer) = head.extensions().get::<T>() else {
                return with(None);
            };
            match address(peer).ip().to_canonical() {
                IpAddr::V4(address) => with(Some(&address.octets())),
                IpAddr::V6(address) => with(Some(&address.octets()[..8])),
            }
        })
    }

    /// What `key` makes of a request.
    #[must_use]
    pub fn from_fn<K, F>(key: F) -> Self
    where
        K: AsRef<[u8]>,
        F: Fn(&RequestHead<'_>) -> Option<K> + Send + Sync + 'static,
    {
        Self::visit(move |head, with| with(key(head).as_ref().map(AsRef::as_ref)))
    }

    fn visit(
        visit: impl Fn(&RequestHead<'_>, &mut dyn FnMut(Option<&[u8]>)) + Send + Sync + 'static,
    ) -> Self {
        Self(Source::Visit(Arc::new(visit)))
    }

    /// Calls `with` with the key of a request; an absent one is empty.
    pub(super) fn with<R>(&self, head: &RequestHead<'_>, with: impl FnOnce(&[u8]) -> R) -> R {
        match &self.0 {
            Source::Header(name) => with(head.headers().get(name).map_or(b"", |v| v.as_bytes())),
            Source::Visit(visit) => {
                let (mut with, mut result) = (Some(with), None);
                visit(head, &mut |key| {
                    if let Some(with) = with.take() {
                        result = Some(with(key.unwrap_or_default()));
                    }
                });
                #[expect(clippy::expect_used, reason = "each visitor above calls it once")]
                result.expect("a visitor that was called")
            }
        }
    }
}

impl fmt::Debug for KeyBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Header(name) => f.debug_tuple("Header").field(name).finish(),
            Source::Visit(_) => f.write_str("Visit"),
        }
    }
}

/// How many tokens a call takes.
///
/// A call that takes more than the burst can never be let through: it is refused, with no time to come
/// again at.
#[derive(Clone)]
pub struct Cost(Price);

#[derive(Clone)]
enum Price {
    Constant(u32),
    Header(HeaderName),
    Count(Arc<Count>),
}

impl Cost {
    /// So many tokens for each call; none is free.
    #[must_use]
    pub const fn constant(tokens: u32) -> Self {
        Self(Price::Constant(tokens))
    }

    /// The whole number in a header, at least 1, and 1 where there is none; one that is too large for a `u32` is
    /// more than any burst. It is the caller's word, so that it wants a caller who is trusted, or a layer
    /// outside that sets it.
    #[must_use]
    pub const fn header(name: HeaderName) -> Self {
        Self(Price::Header(name))
    }

    /// What `cost` makes of a request.
    #[must_use]
    pub fn from_fn(cost: impl Fn(&RequestHead<'_>) -> u32 + Send + Sync + 'static) -> Self {
        Self(Price::Count(Arc::new(cost)))
    }

    pub(super) fn of(&self, head: &RequestHead<'_>) -> u32 {
        match &self.0 {
            Price::Constant(tokens) => *tokens,
            Price::Header(name) => {
                let value = head.headers().get(name).and_then(|v| v.to_str().ok());
                match value.map(|v| v.trim().parse::<u32>()) {
                    Some(Ok(tokens)) => tokens.max(1),
                    Some(Err(error)) if *error.kind() == IntErrorKind::PosOverflow => u32::MAX,
                    _ => 1,
                }
            }
            Price::Count(count) => count(head),
        }
    }
}

impl Default for Cost {
    fn default() -> Self {
        Self::constant(1)
    }
}

impl fmt::Debug for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Price::Constant(tokens) => write!(f, "{tokens}"),
            Price::Header(name) => f.debug_tuple("Header").field(name).finish(),
            Price::Count(_) => f.write_str("Count"),
        }
    }
}
