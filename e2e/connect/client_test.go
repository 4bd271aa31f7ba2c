package connect

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

// A client is one in a scenario, with all that its SDK has reported.
type client struct {
	driver
	t    *testing.T
	name string

	at    int            // the events before it have been waited for
	heard map[string]int // by channel: the publications among the events before it have been waited for

	mu     sync.Mutex // guards the fields below
	events []event
	more   chan struct{} // closed at the next event
}

// lastEvents is how many events of a client a failure shows.
const lastEvents = 40

func newClient(t *testing.T, name string) *client {
	c := &client{t: t, name: name, heard: map[string]int{}, more: make(chan struct{})}
	t.Cleanup(func() {
		if t.Failed() {
			c.mu.Lock()
			defer c.mu.Unlock()
			var b strings.Builder
			for _, e := range c.events[max(0, len(c.events)-lastEvents):] {
				fmt.Fprintf(&b, "%.300s\n", quoted(e))
			}
			t.Logf("%s has reported %d events, at last:\n%s", name, len(c.events), &b)
		}
	})
	return c
}

// take is what the driver reports its events to.
func (c *client) take(e event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
	close(c.more)
	c.more = make(chan struct{})
}

// await waits for the first event from index at that matches, and returns the index
// behind it.
func (c *client) await(at int, what string, match func(event) bool) (event, int) {
	c.t.Helper()
	bound := time.After(basetest.Patience)
	for {
		c.mu.Lock()
		events, more := c.events, c.more
		c.mu.Unlock()
		for ; at < len(events); at++ {
			if match(events[at]) {
				return events[at], at + 1
			}
		}
		select {
		case <-more:
		case <-bound:
			require.FailNow(c.t, c.name+" waits in vain for "+what)
		}
	}
}

// want waits for the next event of a type about a channel, or about the connection
// if the channel is empty. It passes over others.
func (c *client) want(typ, channel string) (e event) {
	c.t.Helper()
	e, c.at = c.await(c.at, strings.TrimSpace(typ+" "+channel), func(e event) bool { return e.Type == typ && e.Channel == channel })
	return e
}

// hears wants the next publications of a channel to be these, in this order. It
// returns them.
func (c *client) hears(channel string, data ...string) (all []event) {
	c.t.Helper()
	for i, want := range data {
		var e event
		e, c.heard[channel] = c.await(c.heard[channel], fmt.Sprintf("publication %d of %d in %s: %.100s", i+1, len(data), channel, want), func(e event) bool {
			return e.Type == "publication" && e.Channel == channel
		})
		require.Equal(c.t, want, e.Data, "%s in %s, publication %d of %d", c.name, channel, i+1, len(data))
		all = append(all, e)
	}
	return all
}

// count is how many events of a type about a channel there were.
func (c *client) count(typ, channel string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.events {
		if e.Type == typ && e.Channel == channel {
			n++
		}
	}
	return n
}

// online connects, and wants it to succeed.
func (c *client) online() (e event) {
	c.t.Helper()
	c.connect()
	return c.want("connected", "")
}

// in subscribes, and wants it to succeed.
func (c *client) in(channel string, o interest) (e event) {
	c.t.Helper()
	c.subscribe(channel, o)
	return c.want("subscribed", channel)
}

// joins wants to be subscribed to these channels, in any order, and returns the events
// by channel.
func (c *client) joins(channels ...string) map[string]event {
	c.t.Helper()
	all, at := map[string]event{}, c.at
	for _, channel := range channels {
		e, behind := c.await(at, "subscribed "+channel, func(e event) bool { return e.Type == "subscribed" && e.Channel == channel })
		all[channel], c.at = e, max(c.at, behind)
	}
	return all
}

// stayed wants the connection never to have been lost.
func (c *client) stayed() {
	c.t.Helper()
	assert.Equal(c.t, 1, c.count("connecting", ""), "%s has connected only once", c.name)
	assert.Zero(c.t, c.count("disconnected", ""))
}

// says publishes, and wants it to succeed.
func (c *client) says(channel, data string) {
	c.t.Helper()
	require.NoError(c.t, c.publish(channel, data))
}

// refused wants an error of the server with a code.
func refused(t *testing.T, code int, err error) {
	t.Helper()
	var r *refusal
	require.ErrorAs(t, err, &r)
	require.Equal(t, code, r.Code, "%v", err)
}

// numbers are the texts of the numbers from lo to below hi.
func numbers(lo, hi int) (all []string) {
	for i := lo; i < hi; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}
