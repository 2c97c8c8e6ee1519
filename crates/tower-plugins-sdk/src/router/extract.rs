//! What a handler's arguments are made of.

use axum::Extension;
use axum::extract::{FromRef, State};
use bytes::Bytes;
use http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::call::parsed;
use super::error::{CallError, Kind};
use super::{Call, Caller};

/// An argument of a handler, made of a call and of the router's state `S`.
///
/// | argument | is |
/// | --- | --- |
/// | [`Input<T>`] | the request, from JSON |
/// | [`Messages<T>`](super::Messages) | all the requests of a stream |
/// | [`State<T>`] | the router's state, or a part of it that is [`FromRef`] |
/// | [`Caller`] | request id, deadline, headers, metadata |
/// | [`Extension<T>`] | what a [layer](super::Router::layer) put there |
/// | [`Bytes`] | the request as it came, whatever its encoding |
///
/// A program may have its own:
///
/// ```
/// use tower_plugins_sdk::router::{Call, CallError, FromCall, Kind, Router};
///
/// struct Tenant(String);
///
/// impl<S> FromCall<S> for Tenant {
///     fn from_call(call: &mut Call, _: &S) -> Result<Self, CallError> {
///         let tenant = call.caller().header("x-tenant");
///         let tenant = tenant.ok_or_else(|| CallError::new(Kind::Unauthenticated, "x-tenant says who calls"))?;
///         Ok(Self(tenant.to_owned()))
///     }
/// }
///
/// let router = Router::new().method("whoami", async |Tenant(name): Tenant| name);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no argument of a handler",
    label = "not made of a call",
    note = "a handler takes `Input<T>` for its request (with `T: serde::Deserialize`), `State<T>`, `Caller`, `Messages<T>`, `Extension<T>`, `Bytes`, and what implements `FromCall`",
    note = "`State<T>` takes a router with that state: `Router::with_state(state)`"
)]
pub trait FromCall<S>: Sized {
    /// Makes it.
    ///
    /// # Errors
    /// What the caller is told: the handler is then not called.
    fn from_call(call: &mut Call, state: &S) -> Result<Self, CallError>;
}

/// The request, from JSON. A request without a body is `null`.
///
/// What cannot be read as a `T` is [`Kind::InvalidArgument`], and says where it is wrong; a content type that is no
/// JSON is that too, over HTTP with the status 415.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Input<T>(pub T);

impl<S, T: DeserializeOwned> FromCall<S> for Input<T> {
    fn from_call(call: &mut Call, _: &S) -> Result<Self, CallError> {
        must_be_json(call)?;
        parsed(call.payload()).map(Self)
    }
}

/// An absent content type is taken for JSON, as nothing else is spoken here.
pub(super) fn must_be_json(call: &Call) -> Result<(), CallError> {
    let Some(said) = call.caller().header(header::CONTENT_TYPE.as_str()) else {
        return Ok(());
    };
    let media = said.split(';').next().unwrap_or_default().trim();
    let subtype = media.split_once('/').map_or("", |(_, subtype)| subtype);
    let is_json = ["json", "+json"].iter().any(|end| {
        let at = subtype.len().checked_sub(end.len());
        at.and_then(|at| subtype.get(at..))
            .is_some_and(|tail| tail.eq_ignore_ascii_case(end))
    });
    if media.is_empty() || is_json {
        return Ok(());
    }
    let message = format!("this method takes application/json, and not {media}");
    Err(CallError::new(Kind::InvalidArgument, message).status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

impl<S, T: FromRef<S>> FromCall<S> for State<T> {
    fn from_call(_: &mut Call, state: &S) -> Result<Self, CallError> {
        Ok(Self(T::from_ref(state)))
    }
}

impl<S> FromCall<S> for Caller {
    fn from_call(call: &mut Call, _: &S) -> Result<Self, CallError> {
        Ok(call.caller().clone())
    }
}

impl<S> FromCall<S> for Bytes {
    fn from_call(call: &mut Call, _: &S) -> Result<Self, CallError> {
        Ok(call.payload().clone())
    }
}

impl<S, T: Clone + Send + Sync + 'static> FromCall<S> for Extension<T> {
    fn from_call(call: &mut Call, _: &S) -> Result<Self, CallError> {
        let found = call.caller().extensions().get::<T>().cloned();
        let missing = || {
            let name = std::any::type_name::<T>();
            CallError::internal(format!("no layer of this plugin provides a {name}"))
        };
        found.map(Self).ok_or_else(missing)
    }
}
