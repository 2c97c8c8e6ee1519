//! The plugin author's side of `tower-plugins`.
//!
//! A plugin is a program that answers requests. [`Plugin`] makes one of typed handlers ([`router`]), of services that tonic generates, and of
//! axum's routers:
//!
//! ```no_run
//! use tower_plugins_sdk::router::{Input, Router};
//! use tower_plugins_sdk::{Error, Plugin};
//!
//! async fn greet(Input(name): Input<String>) -> String {
//!     format!("Good day, {name}!")
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     Plugin::new("greeter", env!("CARGO_PKG_VERSION"))
//!         .router(Router::new().method("greet", greet))
//!         // .service(CalculatorServer::new(MyCalculator))
//!         .serve()
//!         .await
//! }
//! ```
//!
//! The one program then is
//!
//! | started | |
//! | --- | --- |
//! | by a host | its process, in the protocol of HashiCorp's go-plugin: ours, or a Go program |
//! | `greeter --listen http://127.0.0.1:8080` | a server of HTTP/1.1, HTTP/2 and gRPC |
//! | `greeter --listen https://… --tls-cert … --tls-key …` | the same, with TLS |
//! | `greeter --listen unix:/run/greeter.sock` | the same, on a Unix socket |
//! | by hand, without any | an error that says so, and the exit code 1 |
//!
//! Each has `grpc.health.v1.Health`, and reflection. It ends with SIGTERM, or when its host says so, after the calls under way.
//!
//! # With a host
//!
//! [`Broker`] is for calls to the host, and for services that the host calls; [`Stdio`] is what the host's user sees; the standard error
//! is a log for the host. All messages of the protocol's own services are small. Those of the plugin's services have tonic's limit
//! of 4 MiB when they are received, which `max_decoding_message_size` of each service raises.
//!
//! # By hand
//!
//! What a plugin needs to read and write without [`Plugin`]:
//!
//! * [`envelope`]: the JSON a plugin behind plain HTTP is sent, and answers with;
//! * [`v1`]: the gRPC service to implement, as [`v1::plugin_server::Plugin`];
//! * [`duration`]: timeouts as text.
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
//!
//! # Features
//!
//! | feature | adds |
//! | --- | --- |
//! | `subprocess`, by default | being a process of a host; it has `tls` |
//! | `reflection`, by default | `grpc.reflection.v1` and `v1alpha` |
//! | `tls` | `https` |
//! | `log` | `log`: a log in lines that hosts understand |

#![forbid(unsafe_code)]

mod about;
mod direct;
mod error;
mod listen;
#[cfg(feature = "log")]
pub mod log;
mod plugin;
pub mod router;
mod server;
mod services;
mod signals;
#[cfg(feature = "subprocess")]
mod subprocess;

pub use axum;
#[cfg(feature = "tls")]
pub use rustls;
pub use tonic;
#[cfg(feature = "subprocess")]
use tower_plugins_proto::go_plugin as wire;
pub use tower_plugins_proto::{duration, envelope, v1};

pub use about::Health;
pub use direct::Listener;
pub use error::Error;
pub use listen::{LISTEN, Listen, ListenError};
pub use plugin::Plugin;
pub use services::Services;
#[cfg(feature = "subprocess")]
pub use subprocess::{Broker, BrokerError, Offer, Printer, Reattach, Stdio, TestMode, scrub};
#[cfg(feature = "subprocess")]
pub use tower_plugins_proto::go_plugin::{CookieError, Handshake};
