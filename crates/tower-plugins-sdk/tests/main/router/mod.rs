//! Typed handlers, over every wire.

mod calls;
mod corners;
mod ends;
mod lines;
mod streams;
mod support;
mod wires;
