package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
)

// Measures what stdin asks for, a line each, and answers with nanoseconds: how long so many took, or would at their median.
//
//	spawn COUNT    from nothing to the first answer, one plugin after the other
//	call COUNT     calls one after the other, at their median
//	flight COUNT   calls, sixteen at a time
func measure(config func() *plugin.ClientConfig) {
	running, peer, _ := started(config())
	defer running.Kill()
	asked := bufio.NewScanner(os.Stdin)
	for asked.Scan() {
		what, number, _ := strings.Cut(asked.Text(), " ")
		count := int(parsed(number))
		var took time.Duration
		switch what {
		case "spawn":
			for range count {
				running, _, first := started(config())
				running.Kill()
				took += first
			}
		case "call":
			took = peer.median(count) * time.Duration(count)
		case "flight":
			took = peer.inFlight(count)
		}
		fmt.Println(took.Nanoseconds())
	}
}

// A plugin that has answered, and after what time it did.
func started(config *plugin.ClientConfig) (*plugin.Client, *client, time.Duration) {
	config.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr})
	began := time.Now()
	running := plugin.NewClient(config)
	protocol, err := running.Client()
	must(err)
	dispensed, err := protocol.Dispense("peer")
	must(err)
	peer := dispensed.(*client)
	peer.mustDouble()
	return running, peer, time.Since(began)
}

func (c *client) mustDouble() {
	answer := new(number)
	must(c.connection.Invoke(context.Background(), "/peer.v1.Peer/Double", &number{Value: 21}, answer))
}

func (c *client) median(count int) time.Duration {
	each := make([]time.Duration, count)
	for at := range each {
		began := time.Now()
		c.mustDouble()
		each[at] = time.Since(began)
	}
	slices.Sort(each)
	return each[count/2]
}

func (c *client) inFlight(count int) time.Duration {
	var begun atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range 16 {
		all.Add(1)
		go func() {
			defer all.Done()
			for begun.Add(1) <= int64(count) {
				c.mustDouble()
			}
		}()
	}
	all.Wait()
	return time.Since(began)
}
