//go:build v1.0.1

package main

import "github.com/hashicorp/go-plugin"

// This go-plugin has no test mode: it serves as ever.
func serveTest(config *plugin.ServeConfig) {
	plugin.Serve(config)
}

func setReattach(*plugin.ReattachConfig, int, bool) {}
