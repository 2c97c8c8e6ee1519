// The service of examples/proto/calculator.proto, and a client of it, by google.golang.org/grpc.
//
//	calculator serve DESCRIPTION ADDRESS [CERT KEY [CA]]
//	                                         prints the port that it listens on; over TLS with a certificate and its
//	                                         key, for clients that CA has certified if there is one; it is as well as
//	                                         lines of its input say
//	calculator call DESCRIPTION TARGET       calls it in each shape; the exit code is 0 if all is right
//
// DESCRIPTION is examples/generated/calculator.binpb, which takes the place of generated code.
package main

import (
	"log"
	"os"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const service = "calculator.v1.Calculator"

type schema struct {
	divide, number protoreflect.MessageDescriptor
}

func load(path string) schema {
	bytes, err := os.ReadFile(path)
	check(err)
	var set descriptorpb.FileDescriptorSet
	check(proto.Unmarshal(bytes, &set))
	files, err := protodesc.NewFiles(&set)
	check(err)
	find := func(name protoreflect.FullName) protoreflect.MessageDescriptor {
		found, err := files.FindDescriptorByName("calculator.v1." + name)
		check(err)
		return found.(protoreflect.MessageDescriptor)
	}
	return schema{find("DivideRequest"), find("Number")}
}

func (s schema) of(value float64) *dynamicpb.Message {
	number := dynamicpb.NewMessage(s.number)
	set(number, "value", value)
	return number
}

func set(message *dynamicpb.Message, name protoreflect.Name, value float64) {
	field := message.Descriptor().Fields().ByName(name)
	message.Set(field, protoreflect.ValueOfFloat64(value))
}

func get(message *dynamicpb.Message, name protoreflect.Name) float64 {
	return message.Get(message.Descriptor().Fields().ByName(name)).Float()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	if len(os.Args) < 4 {
		log.Fatal("calculator serve|call DESCRIPTION ADDRESS")
	}
	schema := load(os.Args[2])
	switch os.Args[1] {
	case "serve":
		schema.serve(os.Args[3], os.Args[4:])
	case "call":
		schema.call(os.Args[3])
	default:
		log.Fatal("no command ", os.Args[1])
	}
}
