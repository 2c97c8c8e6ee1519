package main

import "fmt"

// The messages of peer.proto, written by hand: the tags are all that any version of Go's protobuf needs, so that no code is
// generated for each of them.

type empty struct{}

type number struct {
	Value int64 `protobuf:"varint,1,opt,name=value,proto3"`
}

type text struct {
	Value string `protobuf:"bytes,1,opt,name=value,proto3"`
}

type server struct {
	Id uint32 `protobuf:"varint,1,opt,name=id,proto3"`
}

type countRequest struct {
	AddServer uint32 `protobuf:"varint,1,opt,name=add_server,proto3"`
	Amount    int64  `protobuf:"varint,2,opt,name=amount,proto3"`
}

type addRequest struct {
	Left  int64 `protobuf:"varint,1,opt,name=left,proto3"`
	Right int64 `protobuf:"varint,2,opt,name=right,proto3"`
}

type writeRequest struct {
	Sink   int32 `protobuf:"varint,1,opt,name=sink,proto3"`
	Length int64 `protobuf:"varint,2,opt,name=length,proto3"`
}

type payload struct {
	Data []byte `protobuf:"bytes,1,opt,name=data,proto3"`
}

type description struct {
	Version     int32    `protobuf:"varint,1,opt,name=version,proto3"`
	Pid         int32    `protobuf:"varint,2,opt,name=pid,proto3"`
	Directory   string   `protobuf:"bytes,3,opt,name=directory,proto3"`
	Arguments   []string `protobuf:"bytes,4,rep,name=arguments,proto3"`
	Environment []string `protobuf:"bytes,5,rep,name=environment,proto3"`
	Stdin       string   `protobuf:"bytes,6,opt,name=stdin,proto3"`
}

func (m *empty) Reset()        { *m = empty{} }
func (m *number) Reset()       { *m = number{} }
func (m *text) Reset()         { *m = text{} }
func (m *server) Reset()       { *m = server{} }
func (m *countRequest) Reset() { *m = countRequest{} }
func (m *addRequest) Reset()   { *m = addRequest{} }
func (m *writeRequest) Reset() { *m = writeRequest{} }
func (m *payload) Reset()      { *m = payload{} }
func (m *description) Reset()  { *m = description{} }

func (m *empty) String() string        { return "" }
func (m *number) String() string       { return fmt.Sprint(m.Value) }
func (m *text) String() string         { return m.Value }
func (m *server) String() string       { return fmt.Sprint(m.Id) }
func (m *countRequest) String() string { return fmt.Sprint(m.AddServer, m.Amount) }
func (m *addRequest) String() string   { return fmt.Sprint(m.Left, m.Right) }
func (m *writeRequest) String() string { return fmt.Sprint(m.Sink, m.Length) }
func (m *payload) String() string      { return fmt.Sprint(len(m.Data), " bytes") }
func (m *description) String() string  { return fmt.Sprint(m.Version, m.Pid) }

func (*empty) ProtoMessage()        {}
func (*number) ProtoMessage()       {}
func (*text) ProtoMessage()         {}
func (*server) ProtoMessage()       {}
func (*countRequest) ProtoMessage() {}
func (*addRequest) ProtoMessage()   {}
func (*writeRequest) ProtoMessage() {}
func (*payload) ProtoMessage()      {}
func (*description) ProtoMessage()  {}

// The first length bytes of the pattern, from offset on.
func pattern(offset, length int64) []byte {
	bytes := make([]byte, length)
	for at := range bytes {
		position := offset + int64(at)
		line, column := position/64, position%64
		if column == 63 {
			bytes[at] = '\n'
		} else {
			bytes[at] = byte('a' + (line*7+column)%26)
		}
	}
	return bytes
}
