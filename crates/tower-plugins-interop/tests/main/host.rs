//! Our host with plugins in Go and Python.
