package channels

import "sync"

// talkers are the connections whose clients talk: they have sent something a moment ago,
// or are about to. Each keeps its goroutine, and the library's connection, since the next
// message may come soon, and both take longer to make than a message takes. All methods
// may be called concurrently.
type talkers struct {
	mu  sync.Mutex // guards all
	all map[*conn]struct{}
}

func (t *talkers) add(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = make(map[*conn]struct{})
	}
	t.all[c] = struct{}{}
}

func (t *talkers) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, c)
}

// hush ends the waiting of those that have said nothing since it was called last, so that
// they rest.
func (t *talkers) hush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.all {
		if !c.talked.Swap(false) {
			c.Hush()
		}
	}
}

// talk notes that the client talks.
func (w *wire) talk() {
	w.talked.Store(true)
	if !w.talks && w.RawConn() != nil { // otherwise it can't rest anyway
		w.talks = true
		w.hub.talkers.add(w.conn)
	}
}

// hush undoes talk.
func (w *wire) hush() {
	if w.talks {
		w.talks = false
		w.hub.talkers.remove(w.conn)
	}
}
