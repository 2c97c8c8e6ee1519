//! Endpoints are asked how they are, and left out by what comes of it.

pub(crate) mod checked;
mod grpc;
mod life;
mod over;
mod report;
