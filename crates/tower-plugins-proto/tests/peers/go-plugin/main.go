// A plugin of HashiCorp's go-plugin, which does with its broker what it is asked to; and, if called with arguments, a host (host.go).
//
// Its service is peer.Peer. Accept takes an id, as which the plugin then accepts connections, and serves health on them. Dial takes
// an id, calls the health of what the host accepts as that, and returns what it heard.
package main

import (
	"context"
	"os"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type peer struct {
	plugin.NetRPCUnsupportedPlugin
	broker *plugin.GRPCBroker
}

type (
	id    = wrapperspb.UInt32Value
	heard = wrapperspb.StringValue
)

func (p *peer) accept(_ context.Context, id *id) (*heard, error) {
	go p.broker.AcceptAndServe(id.Value, func(options []grpc.ServerOption) *grpc.Server {
		return healthy("of the plugin", options)
	})
	return wrapperspb.String("accepts"), nil
}

// A server that says that service serves.
func healthy(service string, options []grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(options...)
	checks := health.NewServer()
	checks.SetServingStatus(service, grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, checks)
	return server
}

func (p *peer) dial(ctx context.Context, id *id) (*heard, error) {
	status, err := check(ctx, p.broker, id.Value, "of the host")
	return wrapperspb.String(status), err
}

// What is accepted as id says of service.
func check(ctx context.Context, broker *plugin.GRPCBroker, id uint32, service string) (string, error) {
	connection, err := broker.Dial(id)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	request := &grpc_health_v1.HealthCheckRequest{Service: service}
	response, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, request)
	return response.GetStatus().String(), err
}

// Registers what protoc would have generated code for.
func (p *peer) GRPCServer(broker *plugin.GRPCBroker, server *grpc.Server) error {
	method := func(name string, handle func(*peer, context.Context, *id) (*heard, error)) grpc.MethodDesc {
		return grpc.MethodDesc{
			MethodName: name,
			Handler: func(self any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				request := new(id)
				if err := decode(request); err != nil {
					return nil, err
				}
				return handle(self.(*peer), ctx, request)
			},
		}
	}
	p.broker = broker
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "peer.Peer",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{method("Accept", (*peer).accept), method("Dial", (*peer).dial)},
	}, p)
	return nil
}

func (p *peer) GRPCClient(_ context.Context, broker *plugin.GRPCBroker, connection *grpc.ClientConn) (any, error) {
	return &plugged{broker, connection}, nil
}

var handshake = plugin.HandshakeConfig{
	ProtocolVersion:  5,
	MagicCookieKey:   "PEER_PLUGIN",
	MagicCookieValue: "of the tests",
}

func main() {
	if len(os.Args) > 1 {
		host(os.Args[1], os.Args[2:])
		return
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: handshake,
		Plugins:         map[string]plugin.Plugin{"peer": &peer{}},
		GRPCServer:      plugin.DefaultGRPCServer,
	})
}
