package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"math"
	"net/rpc"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// One version of the plugin, for both sides.
type entry struct {
	peer *peer
}

func (e *entry) GRPCServer(broker *plugin.GRPCBroker, server *grpc.Server) error {
	e.peer.broker = broker
	e.peer.register(server)
	return nil
}

func (e *entry) GRPCClient(ctx context.Context, broker *plugin.GRPCBroker, connection *grpc.ClientConn) (any, error) {
	return &client{ctx, broker, connection}, nil
}

// For -netrpc: it is recognised by its protocol, and never called.
func (e *entry) Server(*plugin.MuxBroker) (any, error) {
	return struct{}{}, nil
}

func (e *entry) Client(*plugin.MuxBroker, *rpc.Client) (any, error) {
	return struct{}{}, nil
}

func servePlugin(arguments []string) {
	flags := flag.NewFlagSet("plugin", flag.ExitOnError)
	versions := flags.String("versions", "1", "the versions that it speaks")
	netRPC := flags.Bool("netrpc", false, "speak net/rpc")
	tlsFolder := flags.String("tls", "", "a folder with plugin.crt, plugin.key and ca.crt, who certifies hosts")
	test := flags.Bool("test", false, "serve in test mode, and say on stdout how to attach")
	must(flags.Parse(arguments))

	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: rawStderr, JSONFormat: true, Name: "peer"})
	config := &plugin.ServeConfig{Logger: logger, VersionedPlugins: map[int]plugin.PluginSet{}}
	serving := &peer{logger: logger}
	for _, version := range strings.Split(*versions, ",") {
		number := int(parsed(version))
		config.HandshakeConfig = handshake(number)
		one := &entry{serving}
		config.VersionedPlugins[number] = plugin.PluginSet{"peer": versioned{one, number}}
	}
	if !*netRPC {
		config.GRPCServer = serving.server
	}
	if *tlsFolder != "" {
		config.TLSProvider = func() (*tls.Config, error) { return staticTLS(*tlsFolder, "plugin") }
	}
	if *test {
		serveTest(config)
		return
	}
	plugin.Serve(config)
	time.Sleep(time.Duration(serving.linger.Load()) * time.Millisecond)
}

// Knows which version was chosen: that of the set which is served.
type versioned struct {
	*entry
	version int
}

func (v versioned) GRPCServer(broker *plugin.GRPCBroker, server *grpc.Server) error {
	v.peer.version = v.version
	return v.entry.GRPCServer(broker, server)
}

// A server that takes messages of any size, and whose Shutdown stalls and whose health is bad if asked to.
func (p *peer) server(options []grpc.ServerOption) *grpc.Server {
	intercept := func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		switch info.FullMethod {
		case "/plugin.GRPCController/Shutdown":
			time.Sleep(time.Duration(p.stallShutdown.Load()) * time.Millisecond)
		case "/grpc.health.v1.Health/Check":
			if p.unhealthy.Load() {
				status := grpc_health_v1.HealthCheckResponse_NOT_SERVING
				return &grpc_health_v1.HealthCheckResponse{Status: status}, nil
			}
		}
		return handle(ctx, request)
	}
	return grpc.NewServer(append(options,
		grpc.MaxRecvMsgSize(math.MaxInt32), grpc.MaxSendMsgSize(math.MaxInt32), grpc.UnaryInterceptor(intercept))...)
}

// Both sides' TLS with certificates from files: own.crt and own.key, and ca.crt, who certifies the other.
func staticTLS(folder, own string) (*tls.Config, error) {
	in := func(name string) string { return filepath.Join(folder, name) }
	certificate, err := tls.LoadX509KeyPair(in(own+".crt"), in(own+".key"))
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(in("ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		RootCAs:      pool,
		ServerName:   "localhost",
		MinVersion:   tls.VersionTLS12,
	}, nil
}
