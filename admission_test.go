package channels_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// comingFrom lets a header say from which address a request comes.
func comingFrom(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("X-From"); a != "" {
			r.RemoteAddr = a
		}
		next.ServeHTTP(w, r)
	})
}

// Of many that come at once, as many get in as may, and those who are in lose
// nothing. Who leaves makes room.
func TestMaxConnections(t *testing.T) {
	const most, come = 20, 100
	s := serve(t, channels.Options{MaxConnections: most})
	in := s.DialMany(most-1, "c")
	var got, refused atomic.Int64
	last := make(chan rawClient, come)
	var wg sync.WaitGroup
	for i := range come {
		c := s.dialRaw()
		wg.Go(func() {
			if i%2 == 0 {
				c.Send("GET /channel/c/ HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
			} else {
				c.Send(upgradeRequest("/channel/c/"))
			}
			resp, err := http.ReadResponse(c.BR, nil)
			switch {
			case err != nil:
				t.Error(err)
			case resp.Header.Get("Retry-After") != "" && (resp.StatusCode == http.StatusServiceUnavailable || i%2 == 0): // a stream that ends
				refused.Add(1)
			case resp.StatusCode < 300:
				got.Add(1)
				last <- c
			default:
				t.Error(resp.Status)
			}
		})
	}
	for i := range 50 { // meanwhile
		s.publish("c", "x", fmt.Sprint(i))
	}
	wg.Wait()
	require.EqualValues(t, 1, got.Load())
	require.EqualValues(t, come-1, refused.Load())
	for _, c := range in {
		for i := range 50 {
			require.Equal(t, fmt.Sprint(i), string(c.Message().Body))
		}
	}
	s.handshake("/channel/c/").wantFail(t, 503, "too_many_connections")
	(<-last).Close()
	until(t, "there is room", func() bool { return s.hub.Stats().Connections == most-1 })
	s.untilLetIn("c")
}

func TestMaxConnectionsPerAddress(t *testing.T) {
	s := serve(t, channels.Options{MaxConnectionsPerAddress: 2, OnConnect: func(ctx context.Context, c channels.Client) error {
		if strings.HasPrefix(c.RemoteAddr, "198.51.100.") {
			return channels.ErrForbidden
		}
		return nil
	}}, comingFrom)
	open := func(from string) answer { return s.handshake("/channel/c/", "X-From: "+from) }
	const one, other = "192.0.2.1:1000", "192.0.2.2:1000"
	first := s.upgrade("/channel/c/", "X-From: "+one)
	s.upgrade("/channel/c/", "X-From: 192.0.2.1:2000") // another port
	a := open(one)
	a.wantFail(t, 503, "too_many_connections")
	require.Contains(t, a.message(), "this address has reached its limit of 2 connections")
	s.upgrade("/channel/c/", "X-From: "+other)

	s.upgrade("/channel/c/", "X-From: [2001:db8::1]:1")
	s.upgrade("/channel/c/", "X-From: [2001:db8::ffff]:1")
	open("[2001:db8::2]:1").wantFail(t, 503, "too_many_connections") // one /64
	s.upgrade("/channel/c/", "X-From: [2001:db8:0:1::1]:1")

	for range 5 { // who is refused by a hook does not count
		open("198.51.100.1:1").wantFail(t, 403, "forbidden")
	}
	for range 5 { // and what is no address has no limit of its own
		s.upgrade("/channel/c/", "X-From: @")
	}
	first.Close()
	until(t, "there is room", func() bool { return s.hub.Stats().Connections == 10 })
	s.upgrade("/channel/c/", "X-From: "+one)
}

// Where much waits for those who do not read, nobody new comes in; who is
// there goes on.
func TestMaxQueuedBytes(t *testing.T) {
	s := serveSmall(t, channels.Options{MaxMessageBytes: 64 << 10, QueueBytes: 1 << 20, MaxQueuedBytes: 1 << 20})
	fast := s.join("c", "")
	stalled := []*wsClient{s.stall("c"), s.stall("other")}
	body := `"` + strings.Repeat("x", 60<<10) + `"`
	for s.hub.Stats().Queued < 1<<20 { // not one of the two queues alone is full by then
		for _, channel := range []string{"c", "other"} {
			publish(t, s.hub, channel, "x", body)
		}
		fast.want("x", body)
	}
	s.handshake("/channel/c/").wantFail(t, 503, "overloaded")
	s.getStream("/channel/c/").wantEnded(t, "overloaded")
	s.publish("c", "y", "1")
	fast.want("y", "1")
	require.Zero(t, s.hub.Stats().SlowClosed)
	for _, c := range stalled {
		c.c.CloseNow()
	}
	until(t, "they are gone", func() bool { return s.hub.Stats().Connections == 1 })
	until(t, "nothing waits", func() bool { return s.hub.Stats().Queued == 0 })
	s.upgrade("/channel/c/")
}

// A message that waits for many is in memory once, and counts once.
func TestSharedMessagesCountOnce(t *testing.T) {
	s := serve(t, channels.Options{MaxMessageBytes: 64 << 10, QueueBytes: 1 << 20, MaxQueuedBytes: 1 << 20})
	subs := make([]*channels.Subscription, 500)
	for i := range subs {
		subs[i] = subscription(t, s.hub, "c", nil)
	}
	body := `"` + strings.Repeat("x", 60<<10) + `"`
	for range 10 {
		publish(t, s.hub, "c", "x", body)
	}
	require.InDelta(t, 10*len(body), s.hub.Stats().Queued, 64<<10)
	s.join("c", "").c.CloseNow() // it is let in
	for _, sub := range subs[1:] {
		sub.Close()
	}
	require.InDelta(t, 10*len(body), s.hub.Stats().Queued, 64<<10, "one still holds all of it")
	n := 0
	for range subs[0].Messages() {
		if n++; n == 4 {
			break
		}
	}
	require.InDelta(t, 6*len(body), s.hub.Stats().Queued, 64<<10)
	subs[0].Close()
	require.Zero(t, s.hub.Stats().Queued)
}
