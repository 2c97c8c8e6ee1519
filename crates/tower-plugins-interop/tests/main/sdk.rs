//! Plugins of our SDK under hosts in Go.
