//! Plugins inside other servers.

mod respond;
mod route;

pub use self::route::{Route, RouteFuture};
