//! The examples of `tower-plugins`: run one with `cargo run --example NAME`.
