package redisstore_test

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

// A server that refuses this client tells why, whatever was asked.
func TestServerThatRefusesConnections(t *testing.T) {
	locked, unlocked := redistest.Start(t, "--requirepass", "secret"), redistest.Start(t)
	for name, c := range map[string]struct {
		server *redistest.Server
		change func(*redis.Options)
		says   []string
	}{
		"a wrong password": {locked, func(o *redis.Options) { o.Password = "wrong" }, []string{"WRONGPASS", "check the user and password"}},
		"a wrong user":     {locked, func(o *redis.Options) { o.Username, o.Password = "nobody", "secret" }, []string{"WRONGPASS", "check the user and password"}},
		"no password":      {locked, func(o *redis.Options) {}, []string{"needs a user or password"}},
		"no such database": {unlocked, func(o *redis.Options) { o.DB = 99 }, []string{"DB index is out of range", "no database with this number"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, protocol := range []int{2, 3} {
				client := c.server.Client(func(o *redis.Options) { o.Protocol = protocol; c.change(o) })
				for what, call := range calls(open(t, client), "a") {
					err := call(t.Context())
					for _, says := range c.says {
						require.ErrorContains(t, err, says, "%s, RESP%d", what, protocol)
					}
					require.NotContains(t, err.Error(), "unexpected answer")
					require.NotContains(t, err.Error(), "secret")
				}
			}
		})
	}
}
