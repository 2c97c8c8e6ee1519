package main

import (
	"context"
	"errors"
	"io"
	"log"
	"reflect"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/dynamicpb"
)

func (s schema) call(target string) {
	channel, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	quotient, _, err := s.ask(ctx, channel, 1, 8)
	check(err)
	expect("a quotient", quotient, 0.125)
	var hundred []float64
	for value := 1.0; value <= 100; value++ {
		hundred = append(hundred, value)
	}
	expect("a sum", s.all(ctx, channel, "Sum", hundred), []float64{5050})
	expect("a count", s.all(ctx, channel, "Count", []float64{100}), hundred)
	expect("sums", s.all(ctx, channel, "RunningSum", hundred[:4]), []float64{1, 3, 6, 10})

	_, trailer, err := s.ask(ctx, channel, 1, 0)
	expect("a code", status.Code(err), codes.InvalidArgument)
	expect("a message", status.Convert(err).Message(), "cannot divide by 0 %")
	expect("a trailer", trailer.Get("x-why"), []string{"because"})
	below := s.open(ctx, channel, "RunningSum", []float64{1, -1})
	answer := dynamicpb.NewMessage(s.number)
	check(below.RecvMsg(answer))
	expect("what was before", get(answer, "value"), 1.0)
	expect("a late code", status.Code(below.RecvMsg(answer)), codes.OutOfRange)

	endless, end := context.WithCancel(ctx)
	stream := s.open(endless, channel, "Count", []float64{1e15})
	check(stream.RecvMsg(answer))
	end()
}

func (s schema) ask(ctx context.Context, channel *grpc.ClientConn, dividend, divisor float64) (float64, metadata.MD, error) {
	request, quotient := dynamicpb.NewMessage(s.divide), dynamicpb.NewMessage(s.number)
	set(request, "dividend", dividend)
	set(request, "divisor", divisor)
	var trailer metadata.MD
	err := channel.Invoke(ctx, "/"+service+"/Divide", request, quotient, grpc.Trailer(&trailer))
	return get(quotient, "value"), trailer, err
}

// open sends all numbers to a method.
func (s schema) open(ctx context.Context, channel *grpc.ClientConn, method string, numbers []float64) grpc.ClientStream {
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := channel.NewStream(ctx, both, "/"+service+"/"+method)
	check(err)
	for _, value := range numbers {
		check(stream.SendMsg(s.of(value)))
	}
	check(stream.CloseSend())
	return stream
}

// all is what a method answers to all numbers.
func (s schema) all(ctx context.Context, channel *grpc.ClientConn, method string, numbers []float64) (answers []float64) {
	stream := s.open(ctx, channel, method, numbers)
	for {
		answer := dynamicpb.NewMessage(s.number)
		err := stream.RecvMsg(answer)
		if errors.Is(err, io.EOF) {
			return answers
		}
		check(err)
		answers = append(answers, get(answer, "value"))
	}
}

func expect(what string, found, wanted any) {
	if !reflect.DeepEqual(found, wanted) {
		log.Fatalf("%s: %v, and not %v", what, found, wanted)
	}
}
