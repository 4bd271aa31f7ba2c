package store

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"
)

// Estimates of what things take besides their text, in bytes, including Go's
// overhead (TestMemoryCountsWhatItTakes).
const (
	replicaOverhead = 400
	countOverhead   = 130 // a replica's numbers for a channel, and their share in the sum
	roomOverhead    = 220
	memberOverhead  = 200 // a member, and its places in the room and in the replica's set
)

// registry holds what replicas report, presence included.
type registry struct {
	mu       sync.Mutex // guards the fields below and all that they point to
	replicas map[string]*replica
	sums     *btree.Map[string, *numbers] // by channel, over all replicas; never all zero
	rooms    map[string]*room             // by channel; never empty
	holds    holdings
}

// replica is what one replica has reported.
type replica struct {
	said    Replica       // of itself
	seen    time.Duration // see Memory.now
	dead    bool          // only said is left
	counts  map[string]*share
	members map[memberKey]struct{}
}

// numbers are those of a Count.
type numbers struct{ subscribers, publishes int }

// share is what one replica has of a sum, which stays in sums as long as it has a share.
// So a report looks each channel up once, and not in the tree.
type share struct {
	own numbers
	sum *numbers
}

func newRegistry() registry {
	return registry{
		replicas: make(map[string]*replica),
		sums:     new(btree.Map[string, *numbers]),
		rooms:    make(map[string]*room),
		holds:    newHoldings(),
	}
}

// lockRegistry begins every method of Registry and Presence. It returns with
// reg.mu held, after removing what dead replicas reported (Replicas still shows
// the replicas themselves), or with an error.
func (m *Memory) lockRegistry(ctx context.Context) (now time.Duration, err error) {
	if err := m.enter(ctx); err != nil {
		return 0, err
	}
	m.reg.mu.Lock()
	if m.closed.Load() {
		m.reg.mu.Unlock()
		return 0, ErrClosed
	}
	now = m.now()
	for _, r := range m.reg.replicas {
		switch silent := now - r.seen; {
		case silent >= ForgottenAfter:
			m.removeLocked(r)
		case silent >= DeadAfter && !r.dead:
			m.clearLocked(r)
			r.dead = true
		}
	}
	return now, nil
}

// Report implements [Registry].
func (m *Memory) Report(ctx context.Context, rep Report) (known bool, err error) {
	now, err := m.lockRegistry(ctx)
	if err != nil {
		return false, err
	}
	r, ok := m.reg.replicas[rep.Replica.ID]
	known = ok && !r.dead
	if !ok {
		r = &replica{
			counts:  make(map[string]*share),
			members: make(map[memberKey]struct{}),
		}
		r.said.ID = strings.Clone(rep.Replica.ID)
		m.reg.replicas[r.said.ID] = r
		m.pin(replicaCost(r.said))
	}
	if rep.Full {
		m.clearLocked(r)
	}
	m.pin(-replicaCost(r.said))
	r.seen, r.dead = now, false
	r.said.Started = rep.Replica.Started.Round(0)
	r.said.Seen = m.start.Add(now).Truncate(time.Millisecond).UTC() // not from the wall clock, which may be set
	r.said.Info = bytes.Clone(rep.Replica.Info)
	m.pin(replicaCost(r.said))
	for _, c := range rep.Channels {
		m.countLocked(r, c.Channel, numbers{c.Subscribers, c.Publishes})
	}
	if rep.Full {
		m.updateLocked(r, rep.Members)
	}
	m.reg.mu.Unlock()
	m.evict()
	return known, nil
}

// Forget implements [Registry].
func (m *Memory) Forget(ctx context.Context, replica string) error {
	if _, err := m.lockRegistry(ctx); err != nil {
		return err
	}
	defer m.reg.mu.Unlock()
	if r, ok := m.reg.replicas[replica]; ok {
		m.removeLocked(r)
	}
	m.leaveHoldsLocked(replica)
	return nil
}

// Replicas implements [Registry].
func (m *Memory) Replicas(ctx context.Context) ([]Replica, error) {
	now, err := m.lockRegistry(ctx)
	if err != nil {
		return nil, err
	}
	defer m.reg.mu.Unlock()
	all := make([]Replica, 0, len(m.reg.replicas))
	for _, r := range m.reg.replicas {
		n := r.said
		n.Silent = now - r.seen
		n.Info = bytes.Clone(n.Info)
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b Replica) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// Channels implements [Registry]. Its cost depends on limit, not on the number
// of channels (BenchmarkMemoryChannels).
func (m *Memory) Channels(ctx context.Context, prefix, after string, limit int) ([]Count, error) {
	if _, err := m.lockRegistry(ctx); err != nil {
		return nil, err
	}
	defer m.reg.mu.Unlock()
	if limit <= 0 {
		return nil, nil
	}
	counts := make([]Count, 0, min(limit, m.reg.sums.Len(), 1024))
	m.reg.sums.Ascend(max(prefix, after), func(name string, n *numbers) bool {
		if !strings.HasPrefix(name, prefix) {
			return false
		}
		if name != after || after < prefix { // after itself is excluded
			counts = append(counts, n.count(name))
		}
		return len(counts) < limit
	})
	return counts, nil
}

// Channel implements [Registry].
func (m *Memory) Channel(ctx context.Context, name string) (Count, error) {
	if _, err := m.lockRegistry(ctx); err != nil {
		return Count{}, err
	}
	defer m.reg.mu.Unlock()
	if n, ok := m.reg.sums.Get(name); ok {
		return n.count(name), nil
	}
	return Count{Channel: name}, nil
}

func (n numbers) count(channel string) Count {
	return Count{Channel: channel, Subscribers: n.subscribers, Publishes: n.publishes}
}

// countLocked sets a replica's numbers for a channel, and corrects the sum.
func (m *Memory) countLocked(r *replica, channel string, n numbers) {
	row, ok := r.counts[channel]
	if !ok {
		if n == (numbers{}) {
			return
		}
		// The rows are pointers because setting a map's value also sets its
		// key, which would keep the caller's memory.
		channel = strings.Clone(channel)
		row = &share{sum: m.sumLocked(channel)}
		r.counts[channel] = row
		m.pin(int64(len(channel)) + countOverhead)
	}
	row.sum.subscribers += n.subscribers - row.own.subscribers
	row.sum.publishes += n.publishes - row.own.publishes
	row.own = n
	if n == (numbers{}) {
		delete(r.counts, channel)
		m.pin(-int64(len(channel)) - countOverhead)
		if *row.sum == n {
			m.reg.sums.Delete(channel)
		}
	}
}

// sumLocked returns a channel's sum over all replicas, new if there is none.
func (m *Memory) sumLocked(channel string) *numbers {
	sum, ok := m.reg.sums.Get(channel)
	if !ok {
		sum = new(numbers)
		m.reg.sums.Set(channel, sum)
	}
	return sum
}

// removeLocked forgets a replica.
func (m *Memory) removeLocked(r *replica) {
	m.clearLocked(r)
	delete(m.reg.replicas, r.said.ID)
	m.pin(-replicaCost(r.said))
}

// clearLocked forgets the channels and members that a replica reported.
func (m *Memory) clearLocked(r *replica) {
	for channel := range r.counts {
		m.countLocked(r, channel, numbers{})
	}
	for key := range r.members {
		m.leaveLocked(r, key)
	}
}

// pin counts bytes that are never evicted.
func (m *Memory) pin(n int64) {
	m.pinned.Add(n)
	m.bytes.Add(n)
}

func replicaCost(r Replica) int64 { return int64(len(r.ID)) + int64(len(r.Info)) + replicaOverhead }
