package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
)

// What a host measures of its plugin: how long from nothing to the first answer, how long a call, and how many in a second with
// sixteen under way.
func measure(config func() *plugin.ClientConfig, counts string) {
	numbers := strings.Split(counts, ",")
	spawns, calls, seconds := int(parsed(numbers[0])), int(parsed(numbers[1])), time.Duration(parsed(numbers[2]))*time.Second

	var took []float64
	for range spawns {
		running, _, first := started(config())
		took = append(took, first)
		running.Kill()
	}
	running, peer, _ := started(config())
	defer running.Kill()
	var each []float64
	for call := range calls + calls/10 {
		began := time.Now()
		peer.mustDouble()
		if call >= calls/10 {
			each = append(each, microseconds(time.Since(began)))
		}
	}
	say("bench", map[string]any{"spawn": took, "call": quantiles(each), "per_second": peer.throughput(seconds)}, nil)
}

// A plugin that has answered, and after how many microseconds it did.
func started(config *plugin.ClientConfig) (*plugin.Client, *client, float64) {
	config.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr})
	began := time.Now()
	running := plugin.NewClient(config)
	protocol, err := running.Client()
	must(err)
	dispensed, err := protocol.Dispense("peer")
	must(err)
	peer := dispensed.(*client)
	peer.mustDouble()
	return running, peer, microseconds(time.Since(began))
}

func (c *client) mustDouble() {
	answer := new(number)
	must(c.connection.Invoke(context.Background(), "/peer.v1.Peer/Double", &number{Value: 21}, answer))
}

func (c *client) throughput(time_ time.Duration) float64 {
	var done atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range 16 {
		all.Add(1)
		go func() {
			defer all.Done()
			for time.Since(began) < time_ {
				c.mustDouble()
				done.Add(1)
			}
		}()
	}
	all.Wait()
	return float64(done.Load()) / time.Since(began).Seconds()
}

func quantiles(of []float64) map[string]float64 {
	slices.Sort(of)
	at := func(part float64) float64 { return of[int(part*float64(len(of)-1))] }
	return map[string]float64{"p50": at(0.5), "p99": at(0.99)}
}

func microseconds(time time.Duration) float64 {
	return float64(time.Nanoseconds()) / 1000
}
