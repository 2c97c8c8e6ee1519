//! The server of `loopback`.
use crate::Result;
pub(crate) const COMMAND: &str = "serve";
pub(crate) fn serve(_: &str) -> Result {
    Ok(())
}
