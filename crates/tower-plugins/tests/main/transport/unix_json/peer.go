// A plugin on a Unix socket that speaks lines of JSON, and a host that calls one: as programs in Go write and
// read them, with the standard library alone.
//
//	peer serve PATH        answers every call on the socket at PATH; says "ready" when it listens
//	peer call PATH COUNT   makes COUNT calls of the plugin at PATH, one after the other, and prints each answer
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

type request struct {
	Type      string            `json:"type"`
	RequestID string            `json:"request_id"`
	Data      json.RawMessage   `json:"data"`
	Headers   map[string]string `json:"headers,omitempty"`
	TimeoutMs int               `json:"timeout_ms,omitempty"`
}

type response struct {
	Type      string            `json:"type"`
	RequestID string            `json:"request_id"`
	Success   bool              `json:"success"`
	Data      json.RawMessage   `json:"data,omitempty"`
	Error     string            `json:"error,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"`
}

func main() {
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(os.Args[2])
	case "call":
		err = call(os.Args[2], os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(path string) error {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			decoder, encoder := json.NewDecoder(connection), json.NewEncoder(connection)
			for {
				var asked request
				if decoder.Decode(&asked) != nil || encoder.Encode(answer(asked)) != nil {
					return
				}
			}
		}()
	}
}

func answer(asked request) response {
	said := response{Type: asked.Type, RequestID: asked.RequestID, Headers: asked.Headers}
	if asked.Type != "execute" {
		said.Success, said.Data = true, json.RawMessage(`{"name":"peer","type":"`+asked.Type+`"}`)
		return said
	}
	var data struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(asked.Data, &data); err != nil || data.Text == "" {
		said.Error = "there is no <text>"
		return said
	}
	data.Text = strings.ToUpper(data.Text)
	said.Success = true
	said.Data, _ = json.Marshal(data)
	return said
}

func call(path, count string) error {
	connection, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer connection.Close()
	times, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	decoder, encoder := json.NewDecoder(connection), json.NewEncoder(connection)
	for number := range times {
		data, _ := json.Marshal(map[string]string{"text": fmt.Sprintf("<%d>", number)})
		asked := request{Type: "execute", RequestID: fmt.Sprintf("req_%d", number), Data: data, TimeoutMs: 5000}
		if err := encoder.Encode(asked); err != nil {
			return err
		}
		var said response
		if err := decoder.Decode(&said); err != nil {
			return err
		}
		fmt.Println(said.RequestID, said.Success, string(said.Data)+said.Error)
	}
	return nil
}
