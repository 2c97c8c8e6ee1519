//! Plugins inside other people's servers and clients.

mod gateway;
mod grpc_proxy;
mod load;
mod route;
mod tonic;
mod upgrade;
