//! What a reload changes, what it keeps, and how nodes that leave come to their end.

mod atomic;
mod drain;
mod kept;
mod refused;
mod shutdown;
mod watched;
