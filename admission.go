package channels

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/channels-go/channels/internal/address"
)

// limits hold what all clients together may take of this replica. Each part guards
// itself.
type limits struct {
	admission  admission    // connections
	unfinished unfinished   // bodies and messages whose rest has not come
	answering  atomic.Int64 // bytes of long answers over HTTP that wait for their receivers
	forwarded  atomic.Int64 // bytes of commands that were passed on to other replicas, in this second
}

func (l *limits) init(o *Options) {
	l.admission = admission{most: o.MaxConnections, mostPerAddress: o.MaxConnectionsPerAddress, byAddress: make(map[netip.Prefix]int)}
	l.unfinished = unfinished{limit: o.MaxUnfinishedBytes, grace: unfinishedGrace, claims: make(map[*claim]struct{})}
}

// admission counts connections against the limits. A connection counts from
// before its handshake until OnDisconnect is called. Its methods may be called
// concurrently.
type admission struct {
	most           int // connections
	mostPerAddress int // 0: as many as may be in all

	mu        sync.Mutex // guards the fields below
	total     int
	byAddress map[netip.Prefix]int // empty if there is no limit for each address
}

// admit counts one more connection, or says which limit is reached. After nil,
// dismiss must follow.
func (a *admission) admit(remote string) error {
	from := a.network(remote)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.total >= a.most {
		return errTooManyConnections.saying("this replica has reached its limit of connections; try again later")
	}
	if from.IsValid() {
		if a.byAddress[from] >= a.mostPerAddress {
			return errTooManyConnections.saying("this address has reached its limit of %d connections; close one, or try again later", a.mostPerAddress)
		}
		a.byAddress[from]++
	}
	a.total++
	return nil
}

// dismiss makes room for another connection.
func (a *admission) dismiss(remote string) {
	from := a.network(remote)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total--
	switch n := a.byAddress[from]; {
	case n > 1:
		a.byAddress[from] = n - 1
	case n == 1:
		delete(a.byAddress, from)
	}
}

// network is the address that a connection counts for; it is not valid if there is no
// limit for each.
func (a *admission) network(remote string) netip.Prefix {
	if a.mostPerAddress == 0 {
		return netip.Prefix{}
	}
	return address.Network(remote)
}
