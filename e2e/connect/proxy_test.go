package connect

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

// idleProxy cuts what is silent for 60 s, in a world whose clocks are 5 times as
// fast: the server's pings keep the connection alive. A client has to answer within
// one period, and a browser on a busy machine needs more than a second for that.
func idleProxy(t *testing.T, k kind) {
	s := serve(t, settings{ping: 5 * time.Second, idle: 12 * time.Second})
	alice := s.open(k, "alice", nil)
	alice.online()
	alice.in("c", interest{})

	// The proxy does cut: this connection has no pings.
	began := time.Now()
	silent, err := net.Dial("tcp", s.road.Addr)
	require.NoError(t, err)
	defer silent.Close()
	require.NoError(t, silent.SetDeadline(began.Add(basetest.Patience)))
	_, err = silent.Read(make([]byte, 1))
	require.Error(t, err)
	require.False(t, basetest.IsTimeout(err), "the proxy does not cut")

	pings := s.road.pieces.Load()
	basetest.Eventually(t, "the server pings on", func() bool { return s.road.pieces.Load() > pings })
	require.GreaterOrEqual(t, time.Since(began), 12*time.Second)
	alice.says("c", "1")
	alice.hears("c", "1")
	alice.stayed()
}

// noUpgrades is a proxy that knows no WebSockets, and sends each request to the next
// replica. The SDK falls back to a stream, and what it sends reaches the replica that
// has the stream.
func noUpgrades(t *testing.T, k kind) {
	s := serve(t, settings{history: 10, replicas: 3, presence: true})
	var mu sync.Mutex
	emulated := map[string]int{} // how many requests each replica got
	turn := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			http.Error(w, "what is an upgrade?", http.StatusForbidden)
			return
		}
		to := s.replicas[0].addr()
		if r.URL.Path == "/emulation" {
			mu.Lock()
			to = s.replicas[1+turn%2].addr() // never where the stream is
			turn++
			if r.Method == http.MethodPost {
				emulated[to]++
			}
			mu.Unlock()
		}
		p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to})
		p.FlushInterval = -1
		p.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		proxy.CloseClientConnections()
		proxy.Close()
	})
	transports := []string{"websocket", "http_stream"}
	if k.transport == "sse" {
		transports = []string{"websocket", "sse", "http_stream"}
	}
	alice := s.openAt(k, proxy.Listener.Addr().String(), transports, "alice", nil)
	require.Equal(t, transports[1], alice.online().Transport)
	alice.in("c", interest{})
	for i := range 10 {
		alice.says("c", numbers(0, 10)[i])
	}
	alice.hears("c", numbers(0, 10)...)
	n, err := alice.presenceStats("c")
	require.NoError(t, err)
	require.Equal(t, crowd{1, 1}, n)
	_, err = alice.rpc("no such method", "1")
	refused(t, 104, err)
	alice.unsubscribe("c")
	alice.want("unsubscribed", "c")
	s.say("c", "10")
	alice.in("c", interest{})
	alice.hears("c", "10")
	mu.Lock()
	defer mu.Unlock()
	for _, r := range s.replicas[1:] {
		assert.Positive(t, emulated[r.addr()], "requests through %s", r.name)
	}
	require.Zero(t, alice.count("disconnected", ""))
}
