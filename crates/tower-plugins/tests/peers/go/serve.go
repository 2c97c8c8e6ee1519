package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/dynamicpb"
)

// secure is TLS with a certificate and its key, and then who has to have certified clients.
func secure(files []string) grpc.ServerOption {
	certificate, err := tls.LoadX509KeyPair(files[0], files[1])
	check(err)
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	if len(files) > 2 {
		roots, err := os.ReadFile(files[2])
		check(err)
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(roots) {
			log.Fatal("no certificate in ", files[2])
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return grpc.Creds(credentials.NewTLS(config))
}

func (s schema) serve(address string, files []string) {
	network, port := "tcp", 0
	if path, isUnix := strings.CutPrefix(address, "unix:"); isUnix {
		network, address = "unix", path
	}
	listener, err := net.Listen(network, address)
	check(err)
	if tcp, isTCP := listener.Addr().(*net.TCPAddr); isTCP {
		port = tcp.Port
	}
	var options []grpc.ServerOption
	if len(files) > 0 {
		options = append(options, secure(files))
	}
	server := grpc.NewServer(options...)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Divide", Handler: s.divideOne}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Sum", Handler: s.sum, ClientStreams: true},
			{StreamName: "Count", Handler: s.count, ServerStreams: true},
			{StreamName: "RunningSum", Handler: s.runningSum, ClientStreams: true, ServerStreams: true},
		},
	}, s)
	how := health.NewServer()
	healthgrpc.RegisterHealthServer(server, how)
	fmt.Println(port)
	go func() {
		// It ends with the program that started it.
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			status := healthgrpc.HealthCheckResponse_ServingStatus_value[lines.Text()]
			how.SetServingStatus(service, healthgrpc.HealthCheckResponse_ServingStatus(status))
		}
		server.Stop()
	}()
	check(server.Serve(listener))
}

func (s schema) divideOne(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	request := dynamicpb.NewMessage(s.divide)
	if err := decode(request); err != nil {
		return nil, err
	}
	divisor := get(request, "divisor")
	if divisor == 0 {
		grpc.SetTrailer(ctx, metadata.Pairs("x-why", "because"))
		return nil, status.Error(codes.InvalidArgument, "cannot divide by 0 %")
	}
	return s.of(get(request, "dividend") / divisor), nil
}

// each calls do with every number that comes.
func (s schema) each(stream grpc.ServerStream, do func(float64) error) error {
	for {
		number := dynamicpb.NewMessage(s.number)
		if err := stream.RecvMsg(number); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := do(get(number, "value")); err != nil {
			return err
		}
	}
}

func (s schema) sum(_ any, stream grpc.ServerStream) error {
	sum := 0.0
	err := s.each(stream, func(value float64) error {
		sum += value
		return nil
	})
	if err != nil {
		return err
	}
	return stream.SendMsg(s.of(sum))
}

func (s schema) count(_ any, stream grpc.ServerStream) error {
	last := dynamicpb.NewMessage(s.number)
	if err := stream.RecvMsg(last); err != nil {
		return err
	}
	for value := 1.0; value <= get(last, "value"); value++ {
		if err := stream.SendMsg(s.of(value)); err != nil {
			return err
		}
	}
	return nil
}

func (s schema) runningSum(_ any, stream grpc.ServerStream) error {
	sum := 0.0
	return s.each(stream, func(value float64) error {
		if value < 0 {
			return status.Error(codes.OutOfRange, "below zero")
		}
		sum += value
		return stream.SendMsg(s.of(sum))
	})
}
