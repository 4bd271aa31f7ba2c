package connect

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

// A site is what a scenario runs against: replicas that share a Store and a mesh, a
// road that leads to one of them, and what they tell of their clients.
type site struct {
	t        *testing.T
	settings settings
	road     *road
	replicas []*replica // the road leads to the first one at the beginning
	shared   shared     // what the replicas have in common
	reports
}

// reports are what the replicas of a site tell of their clients.
type reports struct {
	asked chan string  // the tokens that clients have come with
	left  chan leaving // the connections that have ended
	calls chan call    // what clients have sent without waiting for an answer
}

// newReports has room for all that a scenario does not take.
func newReports() reports {
	return reports{make(chan string, 100), make(chan leaving, 100), make(chan call, 100)}
}

// settings are what scenarios vary.
type settings struct {
	replicas      int           // 0: one
	history       int           // how many messages channels keep
	presence      bool          // with events
	ping          time.Duration // 0: longer than a test
	idle          time.Duration // see road
	small         bool          // short queues and socket buffers
	subscriptions int           // the most of one connection; 0: the default
	inbox         string        // what the app subscribes each connection to; may be empty
}

// leaving is the end of a connection, as the server sees it.
type leaving struct {
	user   string
	reason error // nil if the client has left by itself
}

// call is what a client has sent.
type call struct{ user, data string }

// serve starts a site. It ends with the test.
func serve(t *testing.T, o settings) *site {
	t.Helper()
	return serveWith(t, o, inMemory(t))
}

// serveWith is serve with another Store and mesh.
func serveWith(t *testing.T, o settings, with shared) *site {
	t.Helper()
	s := &site{t: t, settings: o, road: newRoad(t, o.idle), shared: with, reports: newReports()}
	for range max(1, o.replicas) {
		s.start()
	}
	s.road.Lead(s.replicas[0].addr())
	return s
}

// start starts another replica.
func (s *site) start() *replica {
	s.t.Helper()
	r := newReplica(s)
	s.replicas = append(s.replicas, r)
	return r
}

// open makes a client with a token, which does not connect yet. change may be nil.
func (s *site) open(k kind, token string, change func(*introduction)) *client {
	s.t.Helper()
	return s.openAt(k, s.road.Addr, []string{k.transport}, token, change)
}

// doors are the paths of the transports.
var doors = map[string]string{
	"websocket":   "/connection/websocket",
	"http_stream": "/connection/http_stream",
	"sse":         "/connection/sse",
}

// openAt is open for an address and for the transports that the client may try.
func (s *site) openAt(k kind, addr string, transports []string, token string, change func(*introduction)) *client {
	s.t.Helper()
	o := introduction{Token: token, Emulation: "http://" + addr + "/emulation",
		Timeout: int(basetest.Patience.Milliseconds())} // a busy machine is no reason to give up
	for _, name := range transports {
		scheme := "http://"
		if name == "websocket" {
			scheme = "ws://"
		}
		o.Endpoints = append(o.Endpoints, endpoint{name, scheme + addr + doors[name]})
	}
	if change != nil {
		change(&o)
	}
	user, _, _ := readToken(token)
	c := newClient(s.t, user)
	c.driver = k.open(s.t, o, c.take)
	s.t.Cleanup(c.close)
	return c
}

// say publishes in the app's name.
func (s *site) say(channel string, data ...string) {
	s.t.Helper()
	for _, d := range data {
		s.replicas[len(s.replicas)-1].publish(channel, d)
	}
}

// next takes what the server tells, and wants it to come.
func next[T any](t *testing.T, what string, from chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(basetest.Patience):
		require.FailNow(t, "the server does not tell of "+what)
	}
	return v
}
