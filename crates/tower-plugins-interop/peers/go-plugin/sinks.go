package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin"
)

// Counts and hashes what is written to it.
type sink struct {
	mutex  sync.Mutex
	length int64
	hash   hash.Hash
}

func newSink() *sink { return &sink{hash: sha256.New()} }

func (s *sink) Write(bytes []byte) (int, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.length += int64(len(bytes))
	s.hash.Write(bytes)
	return len(bytes), nil
}

// A sink of what is no log line: the plugin's logger has the same stderr.
type textSink struct {
	*sink
	line []byte
}

func (t *textSink) Write(written []byte) (int, error) {
	t.line = append(t.line, written...)
	for {
		end := bytes.IndexByte(t.line, '\n') + 1
		if end == 0 {
			return len(written), nil
		}
		if t.line[0] != '{' {
			t.sink.Write(t.line[:end])
		}
		t.line = t.line[end:]
	}
}

// Waits for so many bytes; what there is then.
func (s *sink) wait(length int64) map[string]any {
	for end := time.Now().Add(bound); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.mutex.Lock()
		enough := s.length >= length
		s.mutex.Unlock()
		if enough {
			break
		}
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return map[string]any{"length": s.length, "sha256": fmt.Sprintf("%x", s.hash.Sum(nil))}
}

// Keeps the lines of the host's logger.
type log struct {
	mutex sync.Mutex
	lines []map[string]any
}

func (l *log) Write(line []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	parsed := map[string]any{}
	must(json.Unmarshal(line, &parsed))
	// What floods is debug.
	if len(l.lines) < 1000 || parsed["@level"] != "debug" {
		l.lines = append(l.lines, parsed)
	}
	return len(line), nil
}

// The lines that pass, once there are as many as are wanted, or the time is up.
func (l *log) wait(wanted int, passes func(map[string]any) bool) []map[string]any {
	var found []map[string]any
	for end := time.Now().Add(bound); time.Now().Before(end); time.Sleep(time.Millisecond) {
		found = nil
		l.mutex.Lock()
		for _, line := range l.lines {
			if passes(line) {
				found = append(found, line)
			}
		}
		l.mutex.Unlock()
		if len(found) >= wanted {
			break
		}
	}
	return found
}

// The JSON that go-plugin's test mode and its users pass on.
func attached(text string) *plugin.ReattachConfig {
	var how struct {
		Protocol        string
		ProtocolVersion int
		Pid             int
		Test            bool
		Addr            struct{ Network, String string }
	}
	must(json.Unmarshal([]byte(text), &how))
	var address net.Addr = &net.UnixAddr{Name: how.Addr.String, Net: "unix"}
	if how.Addr.Network == "tcp" {
		resolved, err := net.ResolveTCPAddr("tcp", how.Addr.String)
		must(err)
		address = resolved
	}
	config := &plugin.ReattachConfig{Protocol: plugin.Protocol(how.Protocol), Addr: address, Pid: how.Pid}
	setReattach(config, how.ProtocolVersion, how.Test)
	return config
}
