// A plugin of HashiCorp's go-plugin, which does with its broker what it is asked to.
//
// Its service is peer.Peer. Accept takes an id, as which the plugin then accepts connections, and serves health on them. Dial takes
// an id, calls the health of what the host accepts as that, and returns what it heard.
package main

import (
	"context"
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
		server := grpc.NewServer(options...)
		checks := health.NewServer()
		checks.SetServingStatus("of the plugin", grpc_health_v1.HealthCheckResponse_SERVING)
		grpc_health_v1.RegisterHealthServer(server, checks)
		return server
	})
	return wrapperspb.String("accepts"), nil
}

func (p *peer) dial(ctx context.Context, id *id) (*heard, error) {
	connection, err := p.broker.Dial(id.Value)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	request := &grpc_health_v1.HealthCheckRequest{Service: "of the host"}
	response, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, request)
	if err != nil {
		return nil, err
	}
	return wrapperspb.String(response.Status.String()), nil
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

func (p *peer) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  5,
			MagicCookieKey:   "PEER_PLUGIN",
			MagicCookieValue: "of the tests",
		},
		Plugins:    map[string]plugin.Plugin{"peer": &peer{}},
		GRPCServer: plugin.DefaultGRPCServer,
	})
}
