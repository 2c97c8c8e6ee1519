//! Plugins that speak gRPC: by generated clients, and by typed calls.

mod auth;
mod info;
mod limits;
mod load;
mod peers;
pub(super) mod server;
mod shapes;
mod typed;
