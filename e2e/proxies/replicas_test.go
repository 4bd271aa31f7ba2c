//go:build linux

package proxies

import (
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// Replicas come and go behind a name. A new one gets clients; one that drains or has
// ended gets none, although the name still has its address.
func TestReplicasComeAndGo(t *testing.T) {
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			names := newNames(t)
			port := strconv.Itoa(redistest.FreePort(t))
			old, young := replicaAt(t, "127.0.0.2", port), replicaAt(t, "127.0.0.3", port)
			names.set("127.0.0.2")
			c := newClient(t, start(t, kind, target{"app", port, names.addr}))
			basetest.Eventually(t, "the proxy finds the app", func() bool { return replica(t, c) == "127.0.0.2" })
			for range 10 {
				require.Equal(t, "127.0.0.2", replica(t, c))
			}

			names.set("127.0.0.2", "127.0.0.3")
			basetest.Eventually(t, "the new replica gets requests", func() bool { return replica(t, c) == "127.0.0.3" })

			require.NoError(t, old.Hub.Drain(t.Context()))
			connects := func() bool { // an event stream would be told in a way that no proxy sees
				r, err := doors["connection/websocket"](c, t.Context(), "drained", "")
				if err == nil {
					r.end()
				}
				return err == nil
			}
			switch kind {
			case "nginx": // asks the other one
				for range 10 {
					require.True(t, connects())
				}
			case "haproxy": // sees that it is not ready
				basetest.Eventually(t, "no client is sent to the one that drains", func() bool {
					for range 10 {
						if !connects() {
							return false
						}
					}
					return true
				})
			}

			old.HTTP.CloseClientConnections()
			old.HTTP.Close()
			basetest.Eventually(t, "all clients get the other one", func() bool {
				for range 20 {
					if replica(t, c) != "127.0.0.3" {
						return false
					}
				}
				return connects()
			})
			young.Hub.Drain(t.Context())
			require.False(t, connects(), "there is no other one")
		})
	}
}

// replicaAt starts a replica at an address.
func replicaAt(t *testing.T, host, port string) *hubtest.Server {
	t.Helper()
	s := hubtest.New(t, channels.Options{Hosts: []string{site}}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Replica", host)
			next.ServeHTTP(w, r)
		})
	})
	s.HTTP.Listener.Close()
	var err error
	s.HTTP.Listener, err = net.Listen("tcp", net.JoinHostPort(host, port))
	require.NoError(t, err)
	s.HTTP.Start()
	return s
}

// replica returns which replica answers a request, or "" if none does.
func replica(t *testing.T, c *client) string {
	t.Helper()
	resp, err := c.request(t.Context(), "GET", "/v1/channel/any", "")
	require.NoError(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return ""
	}
	return resp.Header.Get("Replica")
}

// names is a DNS server that knows the name of the app. Its methods may be called
// concurrently.
type names struct {
	addr string

	mu  sync.Mutex // guards ips
	ips []string
}

func (n *names) set(ips ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ips = ips
}

// newNames starts a DNS server. It ends with the test.
func newNames(t *testing.T) *names {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &names{addr: conn.LocalAddr().String()}
	ended := make(chan struct{})
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		b := make([]byte, 4096)
		for {
			size, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if answer, err := n.answer(b[:size]); err == nil {
				conn.WriteTo(answer, from)
			}
		}
	}()
	return n
}

func (n *names) answer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	n.mu.Lock()
	ips := slices.Clone(n.ips)
	n.mu.Unlock()
	for _, q := range m.Questions {
		if q.Type != dnsmessage.TypeA {
			continue
		}
		for _, ip := range ips {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(ip).To4())},
			})
		}
	}
	return m.Pack()
}
