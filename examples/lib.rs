//! The examples of `tower-plugins`: run one with `cargo run --example NAME`.
//!
//! The Rust in README.md and docs/ is compiled here, as doctests: this crate is not published, so that
//! no package lacks these files.

/// Each page's Rust is a doctest of the module of its name.
macro_rules! pages {
    ($($module:ident: $page:literal)*) => { $(
        #[cfg(doctest)]
        #[doc = include_str!($page)]
        mod $module {}
    )* };
}

pages! {
    readme: "../README.md"
    architecture: "../docs/architecture.md"
    config: "../docs/config.md"
    embedding: "../docs/embedding.md"
    errors: "../docs/errors.md"
    layers: "../docs/layers.md"
    observability: "../docs/observability.md"
    porting: "../docs/porting.md"
    reliability: "../docs/reliability.md"
    reload: "../docs/reload.md"
    sdk: "../docs/sdk.md"
    security: "../docs/security.md"
    subprocess: "../docs/subprocess.md"
    transports: "../docs/transports.md"
}
