package main

import (
	"context"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// What each side offers to the other through the broker.
type adder struct{}

func (adder) add(_ context.Context, request *addRequest) (*number, error) {
	return &number{Value: request.Left + request.Right}, nil
}

// Accepts as id, until the broker ends. It returns when that has begun: a plugin whose host connects before, all being on one socket,
// may be ended by go-plugin.
func offerAdder(broker *plugin.GRPCBroker, id uint32) {
	begun := make(chan struct{}, 2)
	go func() {
		broker.AcceptAndServe(id, func(options []grpc.ServerOption) *grpc.Server {
			server := grpc.NewServer(options...)
			server.RegisterService(&grpc.ServiceDesc{
				ServiceName: "peer.v1.Adder",
				HandlerType: (*any)(nil),
				Methods:     []grpc.MethodDesc{unary("Add", adder.add)},
			}, adder{})
			begun <- struct{}{}
			return server
		})
		begun <- struct{}{}
	}()
	<-begun
}

// Has what the other side accepts as id add two numbers.
func addBy(ctx context.Context, broker *plugin.GRPCBroker, id uint32, left, right int64) (int64, error) {
	connection, err := broker.Dial(id)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	sum := new(number)
	err = connection.Invoke(ctx, "/peer.v1.Adder/Add", &addRequest{left, right}, sum)
	return sum.Value, err
}

// What generated code would have for a method with one request and one answer.
func unary[Self, Request, Answer any](name string, handle func(Self, context.Context, *Request) (*Answer, error)) grpc.MethodDesc {
	full := func(self any) string {
		if _, is := self.(adder); is {
			return "/peer.v1.Adder/" + name
		}
		return "/peer.v1.Peer/" + name
	}
	return grpc.MethodDesc{
		MethodName: name,
		Handler: func(self any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			request := new(Request)
			if err := decode(request); err != nil {
				return nil, err
			}
			if interceptor == nil {
				return handle(self.(Self), ctx, request)
			}
			info := &grpc.UnaryServerInfo{Server: self, FullMethod: full(self)}
			return interceptor(ctx, request, info, func(ctx context.Context, request any) (any, error) {
				return handle(self.(Self), ctx, request.(*Request))
			})
		},
	}
}
