package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
)

// What a plugin is to its host.
type client struct {
	done       context.Context
	broker     *plugin.GRPCBroker
	connection *grpc.ClientConn
}

func (c *client) call(method string, request, answer any) error {
	ctx, cancel := context.WithTimeout(c.done, bound)
	defer cancel()
	return c.connection.Invoke(ctx, "/peer.v1.Peer/"+method, request, answer)
}

type (
	seen = map[string]any
	step = func(h *host, argument string) (seen, error)
)

// What -calls names; `name=argument` where there is one.
var steps map[string]step

func init() {
	steps = map[string]step{
		"double":     double,
		"add":        add,
		"doubles":    doubles,
		"broker":     brokerBothWays,
		"ping":       ping,
		"health":     health,
		"services":   services,
		"stdout":     func(h *host, length string) (seen, error) { return h.flood(0, h.stdout, parsed(length)) },
		"stderr":     func(h *host, length string) (seen, error) { return h.flood(1, h.stderr, parsed(length)) },
		"raw-stdout": func(h *host, length string) (seen, error) { return h.flood(2, h.stdout, parsed(length)) },
		"raw-stderr": func(h *host, length string) (seen, error) { return h.flood(3, h.raw, parsed(length)) },
		"log":        logged,
		"panic":      panics,
		"echo":       echo,
		"fill":       fill,
		"describe":   describe,
		"stall":      func(h *host, time string) (seen, error) { return nil, h.number("StallShutdown", time) },
		"linger":     func(h *host, time string) (seen, error) { return nil, h.number("Linger", time) },
		"spawn":      func(h *host, time string) (seen, error) { return nil, h.number("Spawn", time) },
		"set-health": func(h *host, status string) (seen, error) { return nil, h.number("SetHealth", status) },
		"exit":       func(h *host, code string) (seen, error) { return nil, h.number("Exit", code) },
		"murder":     murder,
		"kill":       kill,
		"log-lines":  func(h *host, _ string) (seen, error) { return seen{"lines": h.log.lines}, nil },
		// Lets the test do something meanwhile.
		"pause": func(*host, string) (seen, error) { untilStdinEnds(); return nil, nil },
	}
}

func (h *host) number(method, argument string) error {
	return h.client.call(method, &number{Value: parsed(argument)}, new(number))
}

func double(h *host, _ string) (seen, error) {
	answer := new(number)
	err := h.client.call("Double", &number{Value: 21}, answer)
	return seen{"value": answer.Value}, err
}

// By a plugin that offers an Adder itself, without a broker.
func add(h *host, _ string) (seen, error) {
	sum := new(number)
	err := h.client.connection.Invoke(h.client.done, "/peer.v1.Adder/Add", &addRequest{40, 2}, sum)
	return seen{"value": sum.Value}, err
}

func doubles(h *host, count string) (seen, error) {
	description := &grpc.StreamDesc{StreamName: "Doubles", ServerStreams: true, ClientStreams: true}
	stream, err := h.client.connection.NewStream(h.client.done, description, "/peer.v1.Peer/Doubles")
	if err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	go func() {
		for value := int64(0); value < parsed(count); value++ {
			if err := stream.SendMsg(&number{Value: value}); err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	for value := int64(0); ; value++ {
		answer := new(number)
		if err := stream.RecvMsg(answer); errors.Is(err, io.EOF) {
			return seen{"count": value}, <-sent
		} else if err != nil {
			return seen{"count": value}, err
		}
		if answer.Value != 2*value {
			return nil, fmt.Errorf("%d instead of %d", answer.Value, 2*value)
		}
	}
}

// The plugin calls what the host offers, and the host what the plugin does, in turns.
func brokerBothWays(h *host, rounds string) (seen, error) {
	totals, sums := []int64{}, []int64{}
	for amount := int64(1); amount <= parsed(rounds); amount++ {
		id := h.client.broker.NextId()
		offerAdder(h.client.broker, id)
		total := new(number)
		if err := h.client.call("Count", &countRequest{AddServer: id, Amount: amount}, total); err != nil {
			return seen{"totals": totals}, fmt.Errorf("the plugin calls the host: %w", err)
		}
		totals = append(totals, total.Value)

		offered := new(server)
		if err := h.client.call("Offer", &empty{}, offered); err != nil {
			return nil, err
		}
		sum, err := addBy(h.client.done, h.client.broker, offered.Id, amount, 40)
		if err != nil {
			return seen{"totals": totals, "sums": sums}, fmt.Errorf("the host calls the plugin: %w", err)
		}
		sums = append(sums, sum)
	}
	return seen{"totals": totals, "sums": sums}, nil
}

func ping(h *host, _ string) (seen, error) {
	protocol, err := h.running.Client()
	if err != nil {
		return nil, err
	}
	return nil, protocol.Ping()
}

func health(h *host, service string) (seen, error) {
	request := &grpc_health_v1.HealthCheckRequest{Service: service}
	answer, err := grpc_health_v1.NewHealthClient(h.client.connection).Check(h.client.done, request)
	return seen{"status": answer.GetStatus().String()}, err
}

func services(h *host, _ string) (seen, error) {
	stream, err := reflection.NewServerReflectionClient(h.client.connection).ServerReflectionInfo(h.client.done)
	if err != nil {
		return nil, err
	}
	list := &reflection.ServerReflectionRequest_ListServices{}
	if err := stream.Send(&reflection.ServerReflectionRequest{MessageRequest: list}); err != nil {
		return nil, err
	}
	answer, err := stream.Recv()
	names := []string{}
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	return seen{"names": names}, err
}

func (h *host) flood(which int32, into *sink, length int64) (seen, error) {
	err := h.client.call("Write", &writeRequest{Sink: which, Length: length}, &empty{})
	if err != nil {
		return nil, err
	}
	if which == 2 {
		// Nobody hears that.
		return seen{}, nil
	}
	return into.wait(length), nil
}

func logged(h *host, message string) (seen, error) {
	if err := h.client.call("Log", &text{Value: message}, &empty{}); err != nil {
		return nil, err
	}
	lines := h.log.wait(5, func(line map[string]any) bool { return line["@message"] == message })
	return seen{"lines": lines}, nil
}

func panics(h *host, why string) (seen, error) {
	err := h.client.call("Panic", &text{Value: why}, &empty{})
	lines := h.log.wait(10, func(line map[string]any) bool {
		return line["@level"] == "error" && !strings.HasPrefix(fmt.Sprint(line["@message"]), "plugin process exited")
	})
	return seen{"call": fmt.Sprint(err), "lines": lines}, nil
}

func echo(h *host, length string) (seen, error) {
	bytes := pattern(0, parsed(length))
	answer := new(payload)
	err := h.client.call("Echo", &payload{Data: bytes}, answer)
	return seen{"length": len(answer.Data), "same": sha256.Sum256(bytes) == sha256.Sum256(answer.Data)}, err
}

func fill(h *host, length string) (seen, error) {
	answer := new(payload)
	err := h.client.call("Fill", &number{Value: parsed(length)}, answer)
	same := sha256.Sum256(pattern(0, parsed(length))) == sha256.Sum256(answer.Data)
	return seen{"length": len(answer.Data), "same": same}, err
}

func describe(h *host, _ string) (seen, error) {
	answer := new(description)
	err := h.client.call("Describe", &empty{}, answer)
	return seen{
		"version": answer.Version, "pid": answer.Pid, "directory": answer.Directory, "arguments": answer.Arguments,
		"environment": answer.Environment, "stdin": answer.Stdin,
	}, err
}

// Kills the process behind go-plugin's back; how long until the plugin's context is done.
func murder(h *host, _ string) (seen, error) {
	began := time.Now()
	if err := syscall.Kill(h.running.ReattachConfig().Pid, syscall.SIGKILL); err != nil {
		return nil, err
	}
	select {
	case <-h.client.done.Done():
	case <-time.After(bound):
	}
	return seen{"milliseconds": time.Since(began).Milliseconds(), "done": h.client.done.Err() != nil}, nil
}

func kill(h *host, _ string) (seen, error) {
	began := time.Now()
	h.running.Kill()
	took := time.Since(began)
	forced, errors := false, []any{}
	h.log.mutex.Lock()
	for _, line := range h.log.lines {
		forced = forced || line["@message"] == "plugin failed to exit gracefully"
		if line["@level"] == "error" {
			errors = append(errors, line["@message"])
		}
	}
	h.log.mutex.Unlock()
	return seen{"milliseconds": took.Milliseconds(), "exited": h.running.Exited(), "forced": forced, "errors": errors}, nil
}
