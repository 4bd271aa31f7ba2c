package redisstore

import (
	"context"
	"sync"

	"github.com/channels-go/channels/store"
)

// records knows of each replica that reports through this Store which change of
// its record Redis has acknowledged last. A server may come back, before a report
// has failed, with a record that is some seconds old: what is changed in that one
// would stay wrong for ever. So each change names the one before it, and where
// Redis has another, the replica is unknown and has to report everything.
type records struct {
	mu     sync.Mutex // guards byNode
	byNode map[string]*record
}

// record is that of one replica.
type record struct {
	turn chan struct{} // holds one; who has taken it may change the record
	last string        // the id of the last change that was acknowledged; guarded by turn
}

// maxRecords bounds the replicas that are known. A hub has one.
const maxRecords = 1024

// take waits until nobody else changes a replica's record. The caller gives it
// back with leave.
func (r *records) take(ctx context.Context, s *Store, node string) (*record, error) {
	r.mu.Lock()
	rec := r.byNode[node]
	if rec == nil {
		if r.byNode == nil || len(r.byNode) >= maxRecords {
			r.byNode = make(map[string]*record) // they report everything once more
		}
		rec = &record{turn: make(chan struct{}, 1)}
		rec.turn <- struct{}{}
		r.byNode[node] = rec
	}
	r.mu.Unlock()
	select {
	case <-rec.turn:
		return rec, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.ctx.Done():
		return nil, store.ErrClosed
	}
}

func (rec *record) leave() { rec.turn <- struct{}{} }

func (r *records) forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byNode, node)
}
