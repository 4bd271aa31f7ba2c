//go:build linux

package faults

import (
	"fmt"
	"testing"

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
				all := three(t, redis, quiet, func(r *replica) {
					if mesh == "redis" {
						r.overRedis()
					}
				})
				readers := []*listener{listen(t, all[0], kept), listen(t, all[1], kept)}
				publish := func(r *replica, id string) answer {
					a, err := post(patient, r, kept, `"`+id+`"`, id)
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
