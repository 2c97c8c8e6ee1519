//! Typed calls over the untyped corridor.

mod codec;
#[cfg(feature = "grpc")]
mod grpc;
mod info;
mod invoke;
mod method;
mod options;
#[cfg(feature = "grpc")]
mod protobuf;
#[cfg(feature = "grpc")]
mod stream;

pub use self::codec::{Codec, DecodeError, Envelope, Json};
pub(crate) use self::info::info;
pub use self::info::{InfoSource, PluginInfo};
pub use self::invoke::Invoke;
pub use self::method::Method;
#[cfg(feature = "grpc")]
pub use self::protobuf::Protobuf;
#[cfg(feature = "grpc")]
pub use self::stream::{Answers, InvokeStream};
