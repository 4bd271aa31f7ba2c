package redismesh

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// failoverAddr is what go-redis puts for the address of a client behind Sentinel.
const failoverAddr = "FailoverClient"

// sentinelPeriod is how often Sentinel is asked who the master is.
const sentinelPeriod = 2 * time.Second

// watchMaster leaves a master that Sentinel has replaced, also where that one
// has not heard of it and still calls itself the master. A client behind
// Sentinel dials whom Sentinel names, so this dials, and says nothing. New
// starts it for such a client; it ends with the mesh, and Close waits for it.
func (l *link) watchMaster() {
	o := l.mesh.client.(*redis.Client).Options()
	for {
		select {
		case <-time.After(sentinelPeriod):
		case <-l.mesh.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(l.mesh.ctx, connectWait)
		nc, err := dialWithin(ctx, o.Dialer, o.Network, o.Addr)
		cancel()
		if err != nil {
			continue // no Sentinel answers, or the master does not: others notice that
		}
		master := nc.RemoteAddr().String()
		_ = nc.Close()
		l.leave(master)
	}
}

// leave ends the connections that do not lead to the master.
func (l *link) leave(master string) {
	l.mu.Lock()
	listens, sends := "", l.sendsTo
	if l.conn != nil {
		listens = l.conn.remote()
	}
	l.mu.Unlock()
	if sends != "" && sends != master {
		l.moved.Store(true) // the sender looks before it sends the next probe, at the latest
	}
	if listens != "" && listens != master {
		l.fail(fmt.Errorf("the server has changed: by Sentinel's word, %s is the master now, not %s", master, listens))
	}
}
