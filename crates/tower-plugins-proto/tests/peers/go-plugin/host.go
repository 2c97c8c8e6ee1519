package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Stands in for the plugin: the test is it, and reaches this by named pipes in a folder.
const standIn = `
printf %s "$PLUGIN_CLIENT_CERT" > "$0/certificate"
cat "$0/line"
read -r _ < "$0/end"
`

type plugged struct {
	broker     *plugin.GRPCBroker
	connection *grpc.ClientConn
}

// Starts the plugin whose named pipes are in folder, and calls it, and is called by it. Words are "multiplexed" and "certified".
func host(folder string, words []string) {
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:     handshake,
		Plugins:             map[string]plugin.Plugin{"peer": &peer{}},
		Cmd:                 exec.Command("sh", "-c", standIn, folder),
		AllowedProtocols:    []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:            slices.Contains(words, "certified"),
		GRPCBrokerMultiplex: slices.Contains(words, "multiplexed"),
	})
	protocol, err := client.Client()
	must(err)
	must(protocol.Ping())
	dispensed, err := protocol.Dispense("peer")
	must(err)
	peer := dispensed.(*plugged)
	for id := uint32(1); id <= 8; id++ {
		said(peer.ask("Accept", id), "accepts")
		status, err := check(context.Background(), peer.broker, id, "of the plugin")
		must(err)
		said(status, "SERVING")

		own := peer.broker.NextId()
		go peer.broker.AcceptAndServe(own, func(options []grpc.ServerOption) *grpc.Server {
			return healthy("of the host", options)
		})
		said(peer.ask("Dial", own), "SERVING")
	}
	client.Kill()
	fmt.Println("done")
}

func (p *plugged) ask(method string, id uint32) string {
	answer := new(heard)
	must(p.connection.Invoke(context.Background(), "/peer.Peer/"+method, wrapperspb.UInt32(id), answer))
	return answer.Value
}

func said(found, expected string) {
	if found != expected {
		must(fmt.Errorf("it said %q, not %q", found, expected))
	}
}

func must(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}
