package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// onStorm is no server, but clients that come back to one all at once. They have a
// process of their own, so that those that measure meanwhile do not wait for them.
type onStorm struct {
	http.Handler
	addr  string
	since []string // what they recover, for session
	load  *load
}

const (
	stormChannels = 5  // of each client
	stormMissed   = 20 // messages of each channel
)

// newStorm takes the server's address, and the channels with their positions, each
// "NAME,OFFSET,EPOCH".
func newStorm(args []string) (app, error) {
	if len(args) < 1+stormChannels {
		return nil, fmt.Errorf("too few channels in %q", args)
	}
	a := &onStorm{Handler: http.NotFoundHandler(), addr: args[0]}
	for _, s := range args[1:] {
		a.since = append(a.since, strings.ReplaceAll(s, ",", " "))
	}
	return a, nil
}

// begin connects n clients at once. It returns how many nanoseconds it took until all
// have recovered.
func (a *onStorm) begin(n int) (string, error) {
	begin := time.Now()
	l, err := subscribeAt(a.addr, n, n, func(i int) dialOptions {
		mine := make([]string, stormChannels)
		for k := range mine {
			mine[k] = a.since[(i+k)%len(a.since)]
		}
		o := session(mine...)
		o.missed = stormChannels * stormMissed
		return o
	})
	a.load = l // they stay until the process ends
	return fmt.Sprint(time.Since(begin).Nanoseconds()), err
}

func (a *onStorm) publish(string, []byte) error { return errors.New("no server") }

func (a *onStorm) subscribers() int { return 0 }
