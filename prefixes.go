package channels

import (
	"log/slog"
	"sync"

	"github.com/channels-go/channels/mesh"
)

// prefixes are those that this replica asks its mesh for, for patterns and for taps.
// Several of them may want the same one, while one UnsubscribePrefix ends any number
// of SubscribePrefixes. All its methods may be called concurrently.
type prefixes struct {
	mesh mesh.Mesh // nil in one process
	log  *slog.Logger

	mu sync.Mutex // held while the mesh is told; guards the field below
	n  map[string]int
}

func (p *prefixes) init(o *Options) { p.mesh, p.log, p.n = o.Mesh, o.Logger, make(map[string]int) }

// add asks for the messages of all channels whose names begin so.
func (p *prefixes) add(prefix string) error {
	if p.mesh == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n[prefix] == 0 {
		if err := guard(p.log, "the mesh", func() error { return p.mesh.SubscribePrefix(prefix) }); err != nil {
			return err
		}
	}
	p.n[prefix]++
	return nil
}

// remove undoes add. If that fails, the mesh goes on bringing messages, which are
// dropped.
func (p *prefixes) remove(prefix string) {
	if p.mesh == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n[prefix]--; p.n[prefix] > 0 {
		return
	}
	delete(p.n, prefix)
	if err := guard(p.log, "the mesh", func() error { return p.mesh.UnsubscribePrefix(prefix) }); err != nil {
		p.log.Debug("mesh: unsubscribe", "prefix", prefix, "err", err)
	}
}
