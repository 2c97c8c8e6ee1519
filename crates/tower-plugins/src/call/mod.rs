//! Typed calls over the untyped corridor.

mod codec;
mod invoke;
mod method;

pub use self::codec::{Codec, DecodeError, Envelope, Json};
pub use self::invoke::Invoke;
pub use self::method::Method;
