//! The transports, against real servers on real sockets.

#[cfg(unix)]
mod closing;
pub(crate) mod compression;
mod connections;
mod exchange;
mod h2_peer;
mod head;
mod http2;
mod in_process;
mod lifetime;
pub(crate) mod proxy;
pub(crate) mod server;
pub(crate) mod tls;
pub(crate) mod unix_json;
