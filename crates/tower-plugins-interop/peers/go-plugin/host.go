package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
)

// What the host was asked for, and what it hears.
type host struct {
	config  *plugin.ClientConfig
	running *plugin.Client
	client  *client
	log     *log
	// What GRPCStdio delivers, and the raw copy of the plugin's stderr.
	stdout, stderr, raw *sink
}

func runHost(arguments []string) {
	flags := flag.NewFlagSet("host", flag.ExitOnError)
	autoMTLS := flags.Bool("automtls", false, "AutoMTLS")
	multiplexed := flags.Bool("multiplexed", false, "all connections on one socket")
	versions := flags.String("versions", "1", "the versions that it speaks")
	netRPC := flags.Bool("netrpc", false, "allow net/rpc alone")
	tlsFolder := flags.String("tls", "", "a folder with host.crt, host.key and ca.crt, who certifies plugins")
	start := flags.Duration("start-timeout", 0, "how long a plugin may take for its first line")
	skipEnvironment := flags.Bool("skip-environment", false, "pass on nothing of the host's own environment")
	sockets := flags.String("socket-group", "", "the group of the plugin's sockets")
	attach := flags.String("attach", "", "JSON of a plugin that runs already, instead of a program")
	calls := flags.String("calls", "double,kill", "what to do, one after the other; see steps.go")
	bench := flags.Bool("bench", false, "measure instead, what stdin says; see bench.go")
	must(flags.Parse(arguments))

	config := func() *plugin.ClientConfig {
		made := &plugin.ClientConfig{
			HandshakeConfig:  handshake(int(parsed(strings.Split(*versions, ",")[0]))),
			VersionedPlugins: map[int]plugin.PluginSet{},
			AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
			AutoMTLS:         *autoMTLS,
			StartTimeout:     *start,
		}
		if *netRPC {
			made.AllowedProtocols = []plugin.Protocol{plugin.ProtocolNetRPC}
		}
		for _, version := range strings.Split(*versions, ",") {
			made.VersionedPlugins[int(parsed(version))] = plugin.PluginSet{"peer": &entry{}}
		}
		if *multiplexed {
			set(made, "GRPCBrokerMultiplex", true)
		}
		if *skipEnvironment {
			set(made, "SkipHostEnv", true)
		}
		if *sockets != "" {
			set(made, "UnixSocketConfig.Group", *sockets)
		}
		if *tlsFolder != "" {
			tls, err := staticTLS(*tlsFolder, "host")
			must(err)
			made.TLSConfig = tls
		}
		if *attach != "" {
			made.Plugins = made.VersionedPlugins[int(parsed(*versions))]
			made.Reattach = attached(*attach)
		} else {
			made.Cmd = exec.Command(flags.Arg(0), flags.Args()[1:]...)
		}
		return made
	}
	if *bench {
		measure(config)
		return
	}
	h := &host{config: config(), log: &log{}, stdout: newSink(), stderr: newSink(), raw: newSink()}
	h.config.SyncStdout, h.config.SyncStderr, h.config.Stderr = h.stdout, h.stderr, &textSink{sink: h.raw}
	h.config.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: h.log, JSONFormat: true})
	h.run(strings.Split(*calls, ","))
}

func (h *host) run(calls []string) {
	h.running = plugin.NewClient(h.config)
	defer h.running.Kill()
	protocol, err := h.running.Client()
	if err == nil {
		var dispensed any
		dispensed, err = protocol.Dispense("peer")
		h.client, _ = dispensed.(*client)
	}
	seen := map[string]any{"version": h.running.NegotiatedVersion(), "protocol": h.running.Protocol()}
	if h.running.ReattachConfig() != nil {
		address := h.running.ReattachConfig().Addr
		seen["network"], seen["address"], seen["pid"] = address.Network(), address.String(), h.running.ReattachConfig().Pid
	}
	say("start", seen, err)
	if err != nil {
		return
	}
	for _, call := range calls {
		name, argument, _ := strings.Cut(call, "=")
		step, known := steps[name]
		if !known {
			must(fmt.Errorf("no step %s", name))
		}
		seen, err := step(h, argument)
		say(name, seen, err)
	}
}

// One line for what a step saw.
func say(step string, seen map[string]any, err error) {
	if seen == nil {
		seen = map[string]any{}
	}
	seen["step"] = step
	if err != nil {
		seen["error"] = err.Error()
	}
	line, err := json.Marshal(seen)
	must(err)
	fmt.Println(string(line))
}

// Sets what only some versions of go-plugin have; Outer.Inner is a pointer to a struct.
func set(config *plugin.ClientConfig, name string, value any) {
	outer, inner, nested := strings.Cut(name, ".")
	field := reflect.ValueOf(config).Elem().FieldByName(outer)
	if !field.IsValid() {
		must(fmt.Errorf("this go-plugin has no %s", name))
	}
	if nested {
		field.Set(reflect.New(field.Type().Elem()))
		field = field.Elem().FieldByName(inner)
	}
	field.Set(reflect.ValueOf(value))
}

func untilStdinEnds() {
	io.Copy(io.Discard, os.Stdin)
}

// How long a step waits for what must come.
const bound = 30 * time.Second
