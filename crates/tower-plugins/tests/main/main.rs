//! What `tower_plugins` promises, seen from outside.

mod config;
