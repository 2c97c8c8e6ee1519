//! What a reload changes, what it keeps, and how nodes that leave come to their end.

mod atomic;
mod blue_green;
mod canary;
mod changes;
mod drain;
mod exclusive;
mod kept;
mod on_demand;
mod refused;
mod rolling;
mod shutdown;
mod support;
mod watched;
