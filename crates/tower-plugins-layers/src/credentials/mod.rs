//! What a call shows to be let in.
//!
//! [`CredentialsLayer`] puts headers on each request, marked sensitive, so that they are neither
//! printed nor kept in HTTP/2's compression tables. A header that the request has already is
//! replaced: callers do not speak for the program. It costs a call no more than the header.
//!
//! | what is shown | |
//! | --- | --- |
//! | [`CredentialsLayer::api_key`], [`bearer`](CredentialsLayer::bearer), [`basic`](CredentialsLayer::basic), [`headers`](CredentialsLayer::headers) | what does not change |
//! | [`TokenCredentialsLayer`] | bearer tokens that expire, from a [`TokenSource`] |
//!
//! # Tokens that expire
//!
//! ```text
//!             ┌────────── refreshed ──────────┐
//!             ▼                               │
//! none ──► refresh ──► good ──► due ──► refresh, beside the calls
//!             │ fails            │ fails: the old one goes on until it expires
//!             ▼                  ▼
//!   refused for a second      expired: calls wait for the refresh
//! ```
//!
//! The first calls wait for the first token; there is one refresh at a time, which they share. A source has 30 s
//! for a token; a refresh that no call has driven for so long is begun anew. Ahead of a
//! token's end (`before`, or half its life if that is shorter) the next call begins a refresh and
//! drives it beside its own work, with the old token; nobody waits. A call that is dropped leaves the refresh to
//! the others, or to the next.
//!
//! | option | default | |
//! | --- | --- | --- |
//! | `before` | | how long before a token's end it is refreshed, at most half its life |
//! | [`invalidate_on_401`](TokenCredentialsLayer::invalidate_on_401) | no | a token that was answered with 401, or with gRPC's `UNAUTHENTICATED`, is given up, once |
//! | [`Token::expires_in`] | never | how long the token is good, as its source says |
//!
//! # Errors
//! [`Reason::CredentialsFailed`](crate::Reason::CredentialsFailed) when there is no good token and none can be had,
//! with the source's error and the time after which it is asked again.
//!
//! # Order
//! Innermost: an attempt has today's token, and no layer outside sees or keeps it.
//!
//! ```
//! use http::{Request, Response, header::AUTHORIZATION};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{BoxError, CredentialsLayer};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(CredentialsLayer::bearer("t0ken")?)
//!     .service(service_fn(|request: Request<()>| async move {
//!         Ok::<_, BoxError>(Response::new(request.headers()[AUTHORIZATION].clone()))
//!     }));
//! let shown = service.oneshot(Request::new(())).await.unwrap().into_body();
//! assert!(shown.is_sensitive());
//! assert_eq!(shown, "Bearer t0ken");
//! # Ok::<_, http::header::InvalidHeaderValue>(()) }).unwrap();
//! ```

mod refresh;
mod token;

pub use refresh::{TokenCredentials, TokenCredentialsLayer, TokenFuture};
pub use token::{Token, TokenSource};

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, InvalidHeaderValue};
use tower_layer::Layer;
use tower_service::Service;

/// Makes [`Credentials`] services.
#[derive(Clone, Default)]
pub struct CredentialsLayer {
    headers: Arc<[(HeaderName, HeaderValue)]>,
}

impl CredentialsLayer {
    /// Shows nothing: the layer does nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Shows `key` in the header `name`.
    ///
    /// # Errors
    /// When `key` is not a header's value.
    pub fn api_key(name: HeaderName, key: &str) -> Result<Self, InvalidHeaderValue> {
        Self::headers([(name, key)])
    }

    /// Shows a bearer token (RFC 6750).
    ///
    /// # Errors
    /// When `token` is not part of a header's value.
    pub fn bearer(token: &str) -> Result<Self, InvalidHeaderValue> {
        Self::headers([(AUTHORIZATION, format!("Bearer {token}").as_str())])
    }

    /// Shows an `authorization: Basic` header (RFC 7617) whose base64 is `encoded`.
    ///
    /// # Errors
    /// When `encoded` is not part of a header's value.
    pub fn basic(encoded: &str) -> Result<Self, InvalidHeaderValue> {
        Self::headers([(AUTHORIZATION, format!("Basic {encoded}").as_str())])
    }

    /// Shows these headers.
    ///
    /// # Errors
    /// When a value is not a header's value.
    pub fn headers<'a>(
        headers: impl IntoIterator<Item = (HeaderName, &'a str)>,
    ) -> Result<Self, InvalidHeaderValue> {
        let headers = headers.into_iter().map(|(name, value)| {
            let mut value = HeaderValue::from_str(value)?;
            value.set_sensitive(true);
            Ok((name, value))
        });
        Ok(Self {
            headers: headers.collect::<Result<_, _>>()?,
        })
    }

    fn show<B>(&self, request: &mut Request<B>) {
        for (name, value) in &*self.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
    }
}

impl fmt::Debug for CredentialsLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.headers.iter().map(|(name, _)| name))
            .finish()
    }
}

impl<S> Layer<S> for CredentialsLayer {
    type Service = Credentials<S>;

    fn layer(&self, inner: S) -> Credentials<S> {
        Credentials {
            inner,
            layer: self.clone(),
        }
    }
}

/// Puts headers on each request. See the [module](self).
#[derive(Clone, Debug)]
pub struct Credentials<S> {
    inner: S,
    layer: CredentialsLayer,
}

impl<S, B> Service<Request<B>> for Credentials<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        self.layer.show(&mut request);
        self.inner.call(request)
    }
}

impl<'a, S, B> Service<Request<B>> for &'a Credentials<S>
where
    &'a S: Service<Request<B>>,
{
    type Response = <&'a S as Service<Request<B>>>::Response;
    type Error = <&'a S as Service<Request<B>>>::Error;
    type Future = <&'a S as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        (&self.inner).poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        self.layer.show(&mut request);
        (&self.inner).call(request)
    }
}
