//! Plugins inside other people's servers and clients.

mod route;
mod tonic;
