package channels

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/channels-go/channels/internal/address"
)

// admission counts connections against the limits. A connection counts from
// before its handshake until OnDisconnect is called.
type admission struct {
	mu        sync.Mutex // guards the fields below
	total     int
	byAddress map[netip.Prefix]int // where there is a limit for each
}

// admitConnection counts one more, or says which limit is reached. Where it
// returns nil, dismissConnection has to follow.
func (h *Hub) admitConnection(remote string) error {
	if n := h.queued.sum(); n >= int64(h.opts.MaxQueuedBytes) {
		return errOverloaded
	}
	a, perAddress := &h.admission, h.opts.MaxConnectionsPerAddress
	from := address.Network(remote)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.total >= h.opts.MaxConnections {
		return errTooManyConnections.saying("this replica has as many connections as it may; try again later")
	}
	if perAddress > 0 && from.IsValid() {
		if a.byAddress[from] >= perAddress {
			return errTooManyConnections.saying("there are %d connections from this address, which is the most; close one, or try again later", perAddress)
		}
		if a.byAddress == nil {
			a.byAddress = make(map[netip.Prefix]int)
		}
		a.byAddress[from]++
	}
	a.total++
	return nil
}

func (h *Hub) dismissConnection(remote string) {
	a := &h.admission
	from := address.Network(remote)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total--
	if n := a.byAddress[from]; n > 1 {
		a.byAddress[from] = n - 1
	} else {
		delete(a.byAddress, from)
	}
}

// queuedBytes counts what waits in all outboxes: in several counters, so that
// processors do not contend for one.
type queuedBytes [16]struct {
	atomic.Int64
	_ [56]byte // keeps neighbours off one cache line
}

// counter deals the counters to connections.
func (q *queuedBytes) counter(i uint32) *atomic.Int64 { return &q[i%uint32(len(q))].Int64 }

func (q *queuedBytes) sum() (n int64) {
	for i := range q {
		n += q[i].Load()
	}
	return n
}
