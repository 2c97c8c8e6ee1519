package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// The service peer.v1.Peer.
type peer struct {
	broker        *plugin.GRPCBroker
	logger        hclog.Logger
	version       int
	total         atomic.Int64
	stallShutdown atomic.Int64
	linger        atomic.Int64
	unhealthy     atomic.Bool
}

func (*peer) double(_ context.Context, request *number) (*number, error) {
	return &number{Value: 2 * request.Value}, nil
}

func (*peer) doubles(stream grpc.ServerStream) error {
	for {
		request := new(number)
		if err := stream.RecvMsg(request); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&number{Value: 2 * request.Value}); err != nil {
			return err
		}
	}
}

func (p *peer) count(ctx context.Context, request *countRequest) (*number, error) {
	total, err := addBy(ctx, p.broker, request.AddServer, p.total.Load(), request.Amount)
	if err == nil {
		p.total.Store(total)
	}
	return &number{Value: total}, err
}

func (p *peer) offer(context.Context, *empty) (*server, error) {
	id := p.broker.NextId()
	offerAdder(p.broker, id)
	return &server{Id: id}, nil
}

func (*peer) write(_ context.Context, request *writeRequest) (*empty, error) {
	sinks := []*os.File{os.Stdout, os.Stderr, rawStdout, rawStderr}
	const most = 64 << 10
	for offset := int64(0); offset < request.Length; offset += most {
		piece := pattern(offset, min(most, request.Length-offset))
		if _, err := sinks[request.Sink].Write(piece); err != nil {
			return nil, err
		}
	}
	return &empty{}, nil
}

func (p *peer) log(_ context.Context, line *text) (*empty, error) {
	p.logger.Trace(line.Value, "number", 7)
	p.logger.Debug(line.Value, "number", 7)
	p.logger.Info(line.Value, "number", 7)
	p.logger.Warn(line.Value, "number", 7)
	p.logger.Error(line.Value, "number", 7)
	return &empty{}, nil
}

func (*peer) echo(_ context.Context, request *payload) (*payload, error) {
	return request, nil
}

func (*peer) fill(_ context.Context, request *number) (*payload, error) {
	return &payload{Data: pattern(0, request.Value)}, nil
}

func (p *peer) describe(context.Context, *empty) (*description, error) {
	directory, err := os.Getwd()
	stdin, _ := os.Readlink("/proc/self/fd/0")
	return &description{
		Version:     int32(p.version),
		Pid:         int32(os.Getpid()),
		Directory:   directory,
		Arguments:   os.Args,
		Environment: os.Environ(),
		Stdin:       stdin,
	}, err
}

// In a goroutine of its own, as grpc-go may one day catch what its handlers panic with.
func (*peer) panic(ctx context.Context, why *text) (*empty, error) {
	go func() { panic(why.Value) }()
	<-ctx.Done()
	return nil, ctx.Err()
}

func (*peer) exit(_ context.Context, code *number) (*empty, error) {
	os.Exit(int(code.Value))
	return nil, nil
}

func (*peer) wait(ctx context.Context, milliseconds *number) (*empty, error) {
	select {
	case <-time.After(time.Duration(milliseconds.Value) * time.Millisecond):
		return &empty{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *peer) setStallShutdown(_ context.Context, milliseconds *number) (*empty, error) {
	p.stallShutdown.Store(milliseconds.Value)
	return &empty{}, nil
}

func (p *peer) setLinger(_ context.Context, milliseconds *number) (*empty, error) {
	p.linger.Store(milliseconds.Value)
	return &empty{}, nil
}

func (p *peer) setHealth(_ context.Context, healthy *number) (*empty, error) {
	p.unhealthy.Store(healthy.Value == 0)
	return &empty{}, nil
}

func (*peer) spawn(_ context.Context, milliseconds *number) (*number, error) {
	child := exec.Command(os.Args[0], "hold", fmt.Sprint(milliseconds.Value))
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, rawStdout, rawStderr
	if err := child.Start(); err != nil {
		return nil, err
	}
	go child.Wait()
	return &number{Value: int64(child.Process.Pid)}, nil
}

// What spawn starts.
func hold(milliseconds string) {
	time.Sleep(time.Duration(parsed(milliseconds)) * time.Millisecond)
}

func parsed(number string) int64 {
	value, err := strconv.ParseInt(number, 10, 64)
	must(err)
	return value
}

func (p *peer) register(to *grpc.Server) {
	to.RegisterService(&grpc.ServiceDesc{
		ServiceName: "peer.v1.Peer",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary("Double", (*peer).double),
			unary("Count", (*peer).count),
			unary("Offer", (*peer).offer),
			unary("Write", (*peer).write),
			unary("Log", (*peer).log),
			unary("Echo", (*peer).echo),
			unary("Fill", (*peer).fill),
			unary("Describe", (*peer).describe),
			unary("Panic", (*peer).panic),
			unary("Exit", (*peer).exit),
			unary("Wait", (*peer).wait),
			unary("StallShutdown", (*peer).setStallShutdown),
			unary("Linger", (*peer).setLinger),
			unary("Spawn", (*peer).spawn),
			unary("SetHealth", (*peer).setHealth),
		},
		Streams: []grpc.StreamDesc{{
			StreamName:    "Doubles",
			Handler:       func(self any, stream grpc.ServerStream) error { return self.(*peer).doubles(stream) },
			ServerStreams: true,
			ClientStreams: true,
		}},
	}, p)
}
