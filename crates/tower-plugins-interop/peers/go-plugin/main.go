// A plugin of HashiCorp's go-plugin, and a host of it: `peer plugin` and `peer host`, built with several versions of go-plugin.
//
// What the plugin does is said in ../../proto/peer.proto; the host tells on its stdout what it saw, a line of JSON for each step.
package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/go-plugin"
)

// What both sides have written into them: the cookie where nobody chose another.
func handshake(version int) plugin.HandshakeConfig {
	return plugin.HandshakeConfig{
		ProtocolVersion:  uint(version),
		MagicCookieKey:   "TOWER_PLUGINS_COOKIE",
		MagicCookieValue: "tower-plugins-1",
	}
}

func main() {
	var word string
	if len(os.Args) > 1 {
		word = os.Args[1]
	}
	switch word {
	case "plugin":
		servePlugin(os.Args[2:])
	case "host":
		runHost(os.Args[2:])
	case "hold":
		hold(os.Args[2])
	default:
		fmt.Fprintln(os.Stderr, "usage: peer plugin [FLAGS] | peer host [FLAGS] -- PROGRAM [ARGUMENTS]")
		os.Exit(2)
	}
}

// Ends the program if err is an error.
func must(err error) {
	if err != nil {
		fmt.Fprintln(rawStderr, "failed:", err)
		os.Exit(1)
	}
}

// What the process was started with; go-plugin puts others in the place of os.Stdout and os.Stderr.
var rawStdout, rawStderr = os.Stdout, os.Stderr
