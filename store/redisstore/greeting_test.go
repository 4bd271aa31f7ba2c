package redisstore_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// A server that refuses this client tells why, whatever was asked.
func TestServerThatRefusesConnections(t *testing.T) {
	locked, unlocked := redistest.Start(t, "--requirepass", "right"), redistest.Start(t)
	for name, c := range map[string]struct {
		server *redistest.Server
		change func(*redis.Options)
		says   []string
	}{
		"a wrong password": {locked, func(o *redis.Options) { o.Password = "wrong" }, []string{"WRONGPASS", "check the user and password"}},
		"a wrong user":     {locked, func(o *redis.Options) { o.Username, o.Password = "nobody", "right" }, []string{"WRONGPASS", "check the user and password"}},
		"no password":      {locked, func(o *redis.Options) {}, []string{"needs a user or password"}},
		"no such database": {unlocked, func(o *redis.Options) { o.DB = 99 }, []string{"DB index is out of range", "no database with this number"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, protocol := range []int{2, 3} {
				client := c.server.Client(func(o *redis.Options) { o.Protocol = protocol; c.change(o) })
				s, err := redisstore.New(client, redisstore.Options{Prefix: "t"})
				require.NoError(t, err)
				t.Cleanup(func() { s.Close() })
				for what, call := range map[string]func() error{
					"append": func() error {
						_, _, err := s.Append(t.Context(), "a", store.Entry{Header: "x", Body: []byte("1")}, store.AppendOptions{Size: 1, TTL: time.Minute})
						return err
					},
					"range": func() error { _, err := s.Range(t.Context(), "a", store.Query{Limit: 1}); return err },
					"tops":  func() error { _, err := s.Tops(t.Context(), []string{"a", "b"}); return err },
					"nodes": func() error { _, err := s.Replicas(t.Context()); return err },
					"report": func() error {
						_, err := s.Report(t.Context(), store.Report{Replica: store.Replica{ID: "n"}, Full: true})
						return err
					},
					"channels": func() error { _, err := s.Channels(t.Context(), "", "", 10); return err },
					"channel":  func() error { _, err := s.Channel(t.Context(), "a"); return err },
					"update": func() error {
						return s.UpdatePresence(t.Context(), "n", []store.PresenceChange{{Channel: "a", Member: store.Member{ID: "1"}}})
					},
					"members": func() error { _, _, err := s.Members(t.Context(), "a", 1); return err },
					"forget":  func() error { return s.Forget(t.Context(), "n") },
				} {
					err := call()
					for _, says := range c.says {
						require.ErrorContains(t, err, says, "%s, RESP%d", what, protocol)
					}
					require.NotContains(t, err.Error(), "unexpected answer")
				}
			}
		})
	}
}
