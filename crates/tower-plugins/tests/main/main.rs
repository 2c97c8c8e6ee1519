//! What `tower_plugins` promises, through what it makes public.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed test may panic"
)]

mod alone;
mod breakers;
mod broken_request;
mod call;
mod config;
mod effect;
mod embed;
mod endpoints;
mod faults;
mod grpc;
mod health;
mod issuer;
mod oauth2;
mod one_word;
mod own_layers;
mod own_transports;
mod panic;
mod plan;
mod reload;
mod stress;
mod subprocess;
mod support;
mod transport;
