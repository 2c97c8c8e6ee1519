use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};

use crate::RequestHead;

type Taker = dyn Fn(RequestHead<'_>) -> Option<Cow<'_, [u8]>> + Send + Sync;

/// Where in a request the key is by which an endpoint, or a subset of them, is chosen.
///
/// ```
/// use http::Request;
/// use tower_plugins_layers::RequestHead;
/// use tower_plugins_layers::balance::KeyFrom;
///
/// let request = Request::get("/").header("cookie", "a=1; session=xyz").body(()).unwrap();
/// let key = KeyFrom::cookie("session");
/// assert_eq!(key.take(RequestHead::of(&request)).as_deref(), Some(&b"xyz"[..]));
/// ```
#[derive(Clone)]
pub struct KeyFrom(Source);

#[derive(Clone)]
enum Source {
    Header(HeaderName),
    Cookie(Arc<str>),
    Function(Arc<Taker>),
}

impl KeyFrom {
    /// The first value of a header.
    #[must_use]
    pub const fn header(name: HeaderName) -> Self {
        Self(Source::Header(name))
    }

    /// The value of a cookie.
    #[must_use]
    pub fn cookie(name: impl Into<Arc<str>>) -> Self {
        Self(Source::Cookie(name.into()))
    }

    /// What a layer further out put into the request's extensions.
    #[must_use]
    pub fn extension<T: AsRef<str> + Send + Sync + 'static>() -> Self {
        Self::function(|head| {
            let value = head.extensions().get::<T>()?;
            Some(Cow::Borrowed(value.as_ref().as_bytes()))
        })
    }

    /// Whatever a function finds.
    #[must_use]
    pub fn function(
        take: impl Fn(RequestHead<'_>) -> Option<Cow<'_, [u8]>> + Send + Sync + 'static,
    ) -> Self {
        Self(Source::Function(Arc::new(take)))
    }

    /// The name of the header it is in, if it is in one.
    #[must_use]
    pub const fn header_name(&self) -> Option<&HeaderName> {
        match &self.0 {
            Source::Header(name) => Some(name),
            Source::Cookie(_) | Source::Function(_) => None,
        }
    }

    /// The name of the cookie it is in, if it is in one.
    #[must_use]
    pub fn cookie_name(&self) -> Option<&str> {
        match &self.0 {
            Source::Cookie(name) => Some(name),
            Source::Header(_) | Source::Function(_) => None,
        }
    }

    /// The key, if the request has one. Nothing is copied from a header or a cookie.
    #[must_use]
    pub fn take<'a>(&self, head: RequestHead<'a>) -> Option<Cow<'a, [u8]>> {
        match &self.0 {
            Source::Header(name) => {
                let value = head.headers().get(name)?;
                Some(Cow::Borrowed(value.as_bytes()))
            }
            Source::Cookie(name) => cookie(head.headers(), name).map(Cow::Borrowed),
            Source::Function(take) => take(head),
        }
    }
}

/// The value of a cookie. (RFC 6265, section 4.2.1.)
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(COOKIE).into_iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    pairs.find_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|&byte| byte == b'=')?;
        (&pair[..at] == name.as_bytes()).then(|| &pair[at + 1..])
    })
}

impl PartialEq for KeyFrom {
    /// A function is equal only to itself.
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Source::Header(one), Source::Header(other)) => one == other,
            (Source::Cookie(one), Source::Cookie(other)) => one == other,
            (Source::Function(one), Source::Function(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl fmt::Debug for KeyFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Header(name) => write!(f, "header {name}"),
            Source::Cookie(name) => write!(f, "cookie {name}"),
            Source::Function(_) => f.write_str("function"),
        }
    }
}

/// The same in every process and version, so that many balancers send a key to the same endpoint: FNV-1a (Fowler,
/// Noll, Vo), whose bits are then mixed.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(hash)
}

/// Every bit of `x` changes half of the bits. (The finalizer of Appleby's MurmurHash3.)
pub(super) const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}
