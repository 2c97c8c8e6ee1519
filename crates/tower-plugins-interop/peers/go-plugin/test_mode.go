//go:build !v1.0.1

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/go-plugin"
)

// Serves until stdin ends, and says on stdout how to attach, as JSON.
func serveTest(config *plugin.ServeConfig) {
	ctx, cancel := context.WithCancel(context.Background())
	attach := make(chan *plugin.ReattachConfig, 1)
	config.Test = &plugin.ServeTestConfig{Context: ctx, ReattachConfigCh: attach}
	go func() {
		untilStdinEnds()
		cancel()
	}()
	go func() {
		how := <-attach
		said, err := json.Marshal(map[string]any{
			"Protocol": how.Protocol, "ProtocolVersion": how.ProtocolVersion, "Pid": how.Pid, "Test": how.Test,
			"Addr": map[string]string{"Network": how.Addr.Network(), "String": how.Addr.String()},
		})
		must(err)
		fmt.Fprintln(rawStdout, string(said))
	}()
	plugin.Serve(config)
}

func setReattach(config *plugin.ReattachConfig, version int, test bool) {
	config.ProtocolVersion, config.Test = version, test
}
