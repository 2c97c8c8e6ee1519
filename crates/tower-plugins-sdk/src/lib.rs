//! The plugin author's side of `tower-plugins`.
//!
//! A plugin is a program that answers requests over HTTP, gRPC, a Unix socket, or its own standard
//! streams as a subprocess. This crate will hold typed handlers and a `serve` function for each of
//! these. Today it holds only what a plugin needs to read and write by hand:
//!
//! * [`envelope`]: the JSON a plugin behind plain HTTP is sent, and answers with;
//! * [`v1`]: the gRPC service to implement, as [`v1::plugin_server::Plugin`];
//! * [`duration`]: timeouts as text.
//!
//! A plugin behind HTTP is then any web server that does this with a request's body:
//!
//! ```
//! use tower_plugins_sdk::envelope::{Request, Response};
//!
//! fn double(body: &[u8]) -> serde_json::Result<Vec<u8>> {
//!     let request: Request<'_, u32> = serde_json::from_slice(body)?;
//!     serde_json::to_vec(&Response::success(request.request_id, request.data * 2))
//! }
//!
//! let answer = double(br#"{"data":21,"request_id":"r-1","timeout":"30s"}"#)?;
//! assert_eq!(answer, br#"{"data":42,"request_id":"r-1"}"#);
//! # Ok::<(), serde_json::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod router;

pub use tower_plugins_proto::{duration, envelope, v1};
