package redisstore

import (
	"context"
	"sync"

	"github.com/channels-go/channels/store"
)

// records holds, for each replica that reports through this Store, the id of
// the last change of its record that Redis acknowledged. A server may come back
// with a record that is some seconds old before any report has failed. Changes
// to that record would leave it wrong for ever. So each change names the one
// before it. If Redis has another one, the replica counts as unknown and has to
// report everything.
type records struct {
	mu     sync.Mutex // guards byNode
	byNode map[string]*record
}

// record belongs to one replica.
type record struct {
	turn chan struct{} // whoever has put a token into it may change the record
	last string        // the id of the last acknowledged change; guarded by turn
}

// maxRecords bounds the number of replicas remembered. A hub has one.
const maxRecords = 1024

// take waits until no other goroutine changes the replica's record. The caller
// gives it back with leave.
func (r *records) take(ctx context.Context, s *Store, node string) (*record, error) {
	r.mu.Lock()
	rec := r.byNode[node]
	if rec == nil {
		if r.byNode == nil || len(r.byNode) >= maxRecords {
			r.byNode = make(map[string]*record) // those replicas report everything once more
		}
		rec = &record{turn: make(chan struct{}, 1)}
		r.byNode[node] = rec
	}
	r.mu.Unlock()
	select {
	case rec.turn <- struct{}{}:
		return rec, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.ctx.Done():
		return nil, store.ErrClosed
	}
}

func (rec *record) leave() { <-rec.turn }

func (r *records) forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byNode, node)
}
