//! Who calls, and whether it may.
//!
//! [`AuthorizeLayer`] looks at what a request shows: an API key, a bearer token, a user and password, or a
//! token signed by somebody else (feature `jwt`). A request that shows nothing good is refused before the
//! service inside sees anything of it. One that does gets a [`Principal`] in its extensions, and the header
//! it was known by is taken off, so that a caller's secret goes no further.
//!
//! Who is known is said by [`Callers`], or by a [`Policy`] of your own, which may be asynchronous.
//!
//! ```text
//!             header ──► policy ──► scopes ──► the service inside, with a Principal
//!   nothing or unknown ──┘ │          │
//!      unauthenticated 401 ┘          └ forbidden 403
//! ```
//!
//! | option | default | |
//! | --- | --- | --- |
//! | [`AuthorizeLayer::new(callers)`](AuthorizeLayer::new) | | the callers that are known |
//! | [`AuthorizeLayer::policy(policy)`](AuthorizeLayer::policy) | | a policy of your own |
//! | [`AuthorizeLayer::off`] | | asks nothing |
//! | [`require_scope`](AuthorizeLayer::require_scope) | none | what each caller must have been granted, all of them |
//! | [`anonymous`](AuthorizeLayer::anonymous) | no | whether a request that shows nothing goes in, without a principal |
//! | [`forward_credentials`](AuthorizeLayer::forward_credentials) | no | whether what was shown goes in |
//! | [`Callers::api_key_header`] | `x-api-key` | where API keys are looked for |
//! | [`Callers::realm`] | none | the realm of the challenge |
//!
//! # Errors
//! [`Reason::Unauthenticated`](crate::Reason::Unauthenticated) when nothing, or nothing that is known, was
//! shown; [`Reason::Forbidden`](crate::Reason::Forbidden) when the caller lacks a scope or the policy says
//! so; [`Reason::FilterFailed`](crate::Reason::FilterFailed) when a policy could not decide: then the call is
//! refused. [`Denied::find`] has the `WWW-Authenticate` header that belongs into a 401. No error repeats
//! what was shown.
//!
//! # Secrets
//! Of keys, tokens and passwords their SHA-256 is kept and not they themselves. What is shown is compared with
//! all of them, in constant time and without an early end. SHA-256 is fast: give callers random keys, not
//! words.
//!
//! A header that is shown twice is refused: two parties that read the request might each take another
//! one for the caller.
//!
//! # As text
//! With the feature `serde`, [`Callers`] and what is in them are read from text, and never written: what is kept of
//! a secret cannot be read again. No error repeats a secret.
//!
//! # Cancelling
//! Dropping the call drops what an asynchronous policy was doing. The service inside was not called.
//!
//! # Order
//! Outside of whatever costs something: a rate limit outside of it is used up by those who have no
//! business here. Inside of what records calls, and inside of a drain.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::authorize::{AuthorizeLayer, Callers, Denied, Principal};
//! use tower_plugins_layers::{BoxError, Reason};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(AuthorizeLayer::new(Callers::new().api_key("billing", "k3y-of-b1lling")))
//!     .service(service_fn(|request: Request<()>| async move {
//!         let principal = request.extensions().get::<Principal>().unwrap();
//!         Ok::<_, BoxError>(Response::new(principal.name().to_owned()))
//!     }));
//!
//! let mut request = Request::new(());
//! request.headers_mut().insert("x-api-key", "k3y-of-b1lling".parse().unwrap());
//! assert_eq!(service.clone().oneshot(request).await.unwrap().into_body(), "billing");
//!
//! let error = service.oneshot(Request::new(())).await.unwrap_err();
//! assert_eq!(Reason::of(&*error), Some(Reason::Unauthenticated));
//! assert_eq!(Denied::find(&*error).unwrap().challenge().unwrap(), "ApiKey header=\"x-api-key\"");
//! # });
//! ```
//!
//! A policy of your own takes from the head what it needs and answers at once or later:
//!
//! ```
//! use http::request::Parts;
//! use tower_plugins_layers::authorize::{AuthorizeLayer, Denied, Principal};
//!
//! let layer = AuthorizeLayer::policy(|head: &Parts| {
//!     let user = head.headers.get("x-user").cloned();
//!     async move {
//!         let user = user.ok_or(Denied::unauthenticated())?;
//!         // Here a database is asked. An error is `Denied::failed(error)`.
//!         if user == "root" { Err(Denied::forbidden()) } else { Ok(Principal::new("somebody")) }
//!     }
//! });
//! # let _ = layer;
//! ```

mod callers;
mod denied;
#[cfg(feature = "jwt")]
mod jwt;
mod layer;
mod principal;
#[cfg(feature = "serde")]
mod text;

pub use callers::Callers;
pub use denied::Denied;
#[cfg(feature = "jwt")]
pub use jwt::{Algorithm, BadKey, JwtKeys, JwtPolicy};
pub use layer::{Authorize, AuthorizeLayer, Policy, ResponseFuture, Verdict};
pub use principal::Principal;
