//! Plugins inside other servers.

mod forward_auth;
mod grpc_proxy;
pub(crate) mod respond;
mod route;
#[cfg(feature = "http")]
mod upgrade;

pub use self::forward_auth::ForwardAuth;
pub use self::grpc_proxy::{GrpcProxy, GrpcProxyFuture};
pub use self::route::{Route, RouteFuture};
