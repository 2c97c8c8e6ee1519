//! The `tower-plugins` command.
fn main() {}
