package redismesh

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/internal/backoff"
)

// failoverAddr is the address that go-redis reports for a client behind
// Sentinel.
const failoverAddr = "FailoverClient"

// sentinelPeriod is the time between two questions to Sentinel for the master.
const sentinelPeriod = 2 * time.Second

// watchMaster leaves a master that Sentinel has replaced, even if that server
// does not know it yet and still calls itself the master. A client behind
// Sentinel dials the master that Sentinel names. So watchMaster dials, sends
// nothing, and looks at the address. New starts it for such a client. It ends
// with the mesh, and Close waits for it.
func (l *link) watchMaster() {
	o := l.mesh.client.(*redis.Client).Options()
	for backoff.Pause(l.mesh.ctx, sentinelPeriod) {
		ctx, cancel := context.WithTimeout(l.mesh.ctx, connectWait)
		nc, err := dialWithin(ctx, o.Dialer, o.Network, o.Addr)
		cancel()
		if err != nil {
			continue // no Sentinel answers, or the master does not; the link notices that itself
		}
		master := nc.RemoteAddr().String()
		_ = nc.Close()
		l.leave(master)
	}
}

// leave closes the connections that do not lead to the master.
func (l *link) leave(master string) {
	l.mu.Lock()
	listens, sends := "", l.sendsTo
	if l.conn != nil {
		listens = l.conn.remote()
	}
	l.mu.Unlock()
	if sends != "" && sends != master {
		l.moved.Store(true) // the sender checks it before the next probe at the latest
	}
	if listens != "" && listens != master {
		l.fail(fmt.Errorf("the server has changed: Sentinel names %s as the master now, not %s", master, listens))
	}
}
