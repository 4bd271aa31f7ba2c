//go:build linux

package faults

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

// Redis comes back without its last message, which all subscribers have. No
// position means two messages. Every subscriber is told where the history
// parts, and gets what comes after. The next publisher is the replica that
// published the lost message, one that knew it only from the mesh, or one that
// never heard of it.
func TestRedisComesBackOlder(t *testing.T) {
	t.Parallel()
	for _, mesh := range []string{"zmq", "redis"} {
		for _, publisher := range []string{"its publisher", "a subscriber's replica", "a stranger"} {
			t.Run(mesh+"/"+publisher, func(t *testing.T) {
				t.Parallel()
				redis := redistest.Start(t, "--save", "3600 100000")
				flags := []string{"-redis", "redis://" + redis.Addr + "/0"}
				var all []*replica
				for _, name := range []string{"a", "b", "c"} {
					r := newReplica(t, name, "127.0.0.1", nil, flags...)
					if mesh == "redis" {
						r.argv = overRedis(r.argv)
					}
					r.start()
					all = append(all, r)
				}
				redistest.Eventually(t, "the replicas know each other", func() bool {
					for _, r := range all {
						nodes := r.nodes()
						for _, other := range all {
							if n := nodes[other.name]; n.Status != "green" || n.Mesh.Up == 0 {
								return false
							}
						}
					}
					return true
				})
				var readers []*story
				for _, r := range all[:2] {
					readers = append(readers, listen(t, r, "keep"))
				}
				poster := &checked{name: "keep", http: patient}
				publish := func(r *replica, id string) answer {
					a, err := poster.post(r, id)
					require.NoError(t, err)
					return a
				}
				for n := 1; n <= 7; n++ {
					publish(all[0], fmt.Sprint(n))
				}
				redis.Do("SAVE")
				lost := publish(all[0], "lost")
				for _, s := range readers {
					s.reads("1 2 3 4 5 6 7 lost")
				}
				redis.Kill()
				redis.Start()
				by := map[string]*replica{"its publisher": all[0], "a subscriber's replica": all[1], "a stranger": all[2]}[publisher]
				after := publish(by, "after")
				require.Equal(t, lost.Offset, after.Offset)
				require.NotEqual(t, lost.Epoch, after.Epoch)
				publish(all[0], "9")
				for _, s := range readers {
					s.reads("1 2 3 4 5 6 7 lost reset@7 after 9")
				}
			})
		}
	}
}

// overRedis replaces the flags of the mesh by those of a mesh over Redis.
func overRedis(argv []string) (out []string) {
	for i := 0; i < len(argv); i++ {
		switch argv[i] {
		case "-mesh":
			out = append(out, "-mesh", "redis")
			i++
		case "-mesh-listen":
			i++
		default:
			out = append(out, argv[i])
		}
	}
	return out
}

// A story is what a WebSocket receives, as words.
type story struct {
	t   *testing.T
	ws  *websocket.Conn
	got []string
}

func listen(t *testing.T, r *replica, channel string) *story {
	t.Helper()
	ws, _, err := websocket.Dial(t.Context(), "ws://"+r.addr+"/channel/"+channel+"/", &websocket.DialOptions{HTTPClient: plain})
	require.NoError(t, err)
	t.Cleanup(func() { ws.CloseNow() })
	return &story{t: t, ws: ws}
}

// reads reads as much as wanted has, and requires that it is equal.
func (s *story) reads(want string) {
	s.t.Helper()
	end := time.AfterFunc(patience, func() { s.ws.CloseNow() })
	defer end.Stop()
	for len(s.got) < len(strings.Fields(want)) {
		_, b, err := s.ws.Read(s.t.Context())
		require.NoError(s.t, err, "it received %v", s.got)
		var m struct {
			Header string
			Body   json.RawMessage
			Offset uint64
		}
		require.NoError(s.t, json.Unmarshal(b, &m))
		switch m.Header {
		case "m":
			s.got = append(s.got, strings.Trim(string(m.Body), `"`))
		default:
			s.got = append(s.got, fmt.Sprintf("%s@%d", m.Header, m.Offset))
		}
	}
	require.Equal(s.t, want, strings.Join(s.got, " "))
}
