use std::fmt;
use std::marker::PhantomData;

use super::{Codec, Json};

/// What is called: HTTP method, path, whether it may be repeated, and how its request and response
/// are encoded.
///
/// ```
/// use tower_plugins::call::Method;
/// # use serde::{Serialize, Deserialize};
/// #[derive(Serialize)]
/// struct Check { token: String }
/// #[derive(Deserialize)]
/// struct Verdict { allowed: bool }
///
/// static CHECK: Method<Check, Verdict> = Method::post("/v1/check").idempotent();
/// # assert_eq!(CHECK.path(), "/v1/check");
/// ```
pub struct Method<Req: ?Sized, Res, C = Json> {
    method: http::Method,
    path: &'static str,
    idempotent: bool,
    codec: C,
    types: PhantomData<fn(&Req) -> Res>,
}

impl<Req: ?Sized, Res> Method<Req, Res> {
    /// A `POST` of JSON to `path`, which begins with `/`.
    #[must_use]
    pub const fn post(path: &'static str) -> Self {
        Self::new(http::Method::POST, path, Json)
    }

    /// A `GET` of `path`, which begins with `/`: the request must encode to nothing, as `()` does.
    #[must_use]
    pub const fn get(path: &'static str) -> Self {
        Self::new(http::Method::GET, path, Json)
    }
}

impl<Req: ?Sized, Res, C: Codec<Req, Res>> Method<Req, Res, C> {
    /// The same with another codec.
    #[must_use]
    pub const fn with_codec(method: http::Method, path: &'static str, codec: C) -> Self {
        Self::new(method, path, codec)
    }
}

impl<Req: ?Sized, Res, C> Method<Req, Res, C> {
    const fn new(method: http::Method, path: &'static str, codec: C) -> Self {
        Self {
            method,
            path,
            idempotent: false,
            codec,
            types: PhantomData,
        }
    }

    /// Says that a call may be repeated, whatever its HTTP method.
    #[must_use]
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// The path.
    #[must_use]
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// The HTTP method.
    #[must_use]
    pub const fn http_method(&self) -> &http::Method {
        &self.method
    }

    pub(super) fn is_idempotent(&self) -> bool {
        self.idempotent || self.method.is_idempotent()
    }

    pub(super) const fn codec(&self) -> &C {
        &self.codec
    }
}

impl<Req: ?Sized, Res, C: Clone> Clone for Method<Req, Res, C> {
    fn clone(&self) -> Self {
        Self {
            method: self.method.clone(),
            path: self.path,
            idempotent: self.idempotent,
            codec: self.codec.clone(),
            types: PhantomData,
        }
    }
}

impl<Req: ?Sized, Res, C: fmt::Debug> fmt::Debug for Method<Req, Res, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Method")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("idempotent", &self.idempotent)
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}
