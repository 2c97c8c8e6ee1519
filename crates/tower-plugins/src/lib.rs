//! Plugins as tower services: read from a config, and replaced as one graph when it changes.
//!
//! A plugin is something that answers HTTP requests or speaks gRPC: a service on a TCP port, with TLS or without, or behind a Unix socket, or
//! a tower service of this program. [`Plugins`] is the running set of them, and [`Plugin`] the handle to one:
//! a [`Service`](tower_service::Service) that is cheap to clone, always ready, and good for every later
//! config.
//!
//! ```text
//!   plugin.invoke(&CHECK, &req)     plugin.call(request)     axum: route_service("/x", plugin.into_route())
//!                └────────────────────────┬───────────────────────────────┘
//!                                         ▼        one lookup in the graph that serves now
//!   trace ▸ drain ▸ [own layers, a call] ▸ fallback ▸ authorize ▸ deadline ▸ filter ▸ rate_limit ▸ concurrency
//!     ▸ retry or hedge ▸ [own layers, an attempt] ▸ attempt_timeout ▸ balance
//!                                                                        │ each attempt picks anew
//!                                         ┌──────────────────────────────┘
//!                                         ▼
//!   slow_start ▸ outlier ▸ endpoint_budget ▸ breaker ▸ load ▸ time_left ▸ credentials ▸ attempt_trace ▸ transport
//!                                                           ─► http/1.1 · http/2 · tls · unix · unix-json · in-process
//! ```
//!
//! A call ends when its response's body ends: until then it keeps what it found, and a drain waits for it.
//!
//! ```text
//!   file changed, or Plugins::reload(config)
//!     plan      keep · restack · replace · add · remove     ┐ any error: the old graph serves on,
//!     build     only what is new                            ┘ and Plugins::status says why
//!     publish   one store: every later call sees all of it, and no call sees a mix
//!     retire    what left: its last call ends, or drain_timeout ─► cancel
//! ```
//!
//! # A config in code, and a call
//!
//! From a file it is [`Builder::watch`], which reloads it whenever it changes, or
//! [`Config::from_file`](config::Config::from_file).
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceExt, service_fn};
//! use tower_plugins::config::{Config, PluginSpec};
//! use tower_plugins::{Body, Plugins};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let hello = service_fn(|_: Request<Body>| async {
//!     Ok::<_, std::io::Error>(Response::new(Body::from("hello")))
//! });
//! let mut config = Config::new().with(PluginSpec::in_process("greeter", "hello")?);
//! let plugins = Plugins::builder().service("hello", hello).start(config.clone()).await?;
//!
//! let greeter = plugins.plugin("greeter");
//! let response = greeter.clone().oneshot(Request::new(Body::empty())).await?;
//! assert_eq!(response.status(), 200);
//!
//! config.plugins.clear();
//! println!("{}", plugins.reload(config).await?); // generation 2: remove greeter
//! let error = greeter.oneshot(Request::new(Body::empty())).await.unwrap_err();
//! assert!(error.is_not_found());
//! # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # A typed call
//!
//! A [`Method`](call::Method) says once what is called and how it is encoded; [`Plugin::invoke`] calls it, with a
//! timeout, headers and a [`Priority`] of the call's own if it has them.
//!
//! ```
//! # use http::{Request, Response};
//! # use tower_plugins::{Body, config::{Config, PluginSpec}};
//! use std::time::Duration;
//! use serde::{Deserialize, Serialize};
//! use tower_plugins::Plugins;
//! use tower_plugins::call::Method;
//!
//! #[derive(Serialize)]
//! struct Check { token: String }
//! #[derive(Deserialize)]
//! struct Verdict { allowed: bool }
//!
//! static CHECK: Method<Check, Verdict> = Method::post("/v1/check").idempotent();
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let yes = tower::service_fn(|_: Request<Body>| async {
//! #     Ok::<_, std::io::Error>(Response::new(Body::from(r#"{ "allowed": true }"#)))
//! # });
//! # let config = Config::new().with(PluginSpec::in_process("auth", "yes")?);
//! # let plugins = Plugins::builder().service("yes", yes).start(config).await?;
//! let auth = plugins.plugin("auth");
//! let verdict = auth.invoke(&CHECK, &Check { token: "t".into() }).timeout(Duration::from_secs(1)).await?;
//! assert!(verdict.allowed);
//! # Ok::<_, tower_plugins::Error>(()) }).unwrap();
//! ```
//!
//! # Inside an axum or tonic program
//!
//! [`Plugin::into_route`] answers an [`Error`] with the status that its table has for it, and carries WebSockets too.
//! [`Plugin::into_grpc_proxy`] passes gRPC on, and [`Plugin::into_forward_auth`] is asked before others answer.
//!
//! ```
//! # use http::{Request, Response};
//! # use tower_plugins::{Body, Plugins, config::{Config, PluginSpec}};
//! use tower::ServiceExt;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let plugins = Plugins::builder().start(Config::default()).await?;
//! let app: axum::Router = axum::Router::new()
//!     .route_service("/auth/{*rest}", plugins.plugin("auth").into_route());
//!
//! // `auth` is not in the config.
//! let response = app.oneshot(Request::get("/auth/check").body(axum::body::Body::empty())?).await?;
//! assert_eq!(response.status(), 404);
//! # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Features
//!
//! | feature | default | |
//! | --- | --- | --- |
//! | `http` | yes | HTTP/1.1 and HTTP/2 over TCP and Unix sockets; without it there are in-process services only |
//! | `tls` | yes | HTTP over TLS, by rustls with aws-lc-rs; brings `http` |
//! | `watch` | yes | watches the config file and reloads it in place |
//! | `jwt` | | callers that show signed tokens: the key `authorize.jwt` |
//! | `redis` | | rate limits that many processes share on a Redis server: the key `rate_limit.redis` |
//! | `dns` | | endpoints that are found by name, again and again: `dns:` and `dns+srv:` in place of a URL; brings `http` |
//! | `subprocess` | | plugins that are processes of this program's: `transport: exec-json`, and `subprocess` for those of HashiCorp's go-plugin; brings `grpc` and `tls`. On Unix |
//! | `schema` | | `Config` implements `schemars::JsonSchema`, for a program that has it in its own config |
//! | `grpc` | | gRPC: `transport: grpc` and `grpc-tls`, typed calls and streams over them, and a `tonic::Status` in the source chain of each [`Error`], so that generated clients see the right code; brings `http` |
//!
//! # More
//!
//! The repository's `docs/` has a page for each question: the architecture, every key of the config, what a
//! reload guarantees, layers, transports, errors, metrics and spans. The layers are a crate of their own,
//! `tower-plugins-layers`, for other tower stacks.

pub mod call;
pub mod config;
pub mod embed;
pub mod reload;
#[cfg(all(feature = "subprocess", unix))]
pub mod session;
pub mod transport;
#[cfg(feature = "http")]
pub mod upgrade;

mod body;
mod builder;
mod error;
mod graph;
mod node;
mod plugin;
mod plugins;

pub use body::Body;
pub use builder::Builder;
pub use config::Place;
pub use error::{Blame, Error};
pub use graph::{Change, Generation, Plan};
pub use node::{EndpointHealth, HealthReport, HealthStatus, Next, PluginHealth};
pub use plugin::{CallFuture, Plugin};
pub use plugins::Plugins;
/// Of [`Plugins::breakers`]: a breaker's handle, and what it says.
pub use tower_plugins_layers::breaker;
pub use tower_plugins_layers::{Priority, Reason};
