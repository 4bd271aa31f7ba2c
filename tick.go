package channels

import "time"

// tick is the hub's clock: once a second it asks some connections for a sign
// of life, and lets rates fall. It waits for nobody, and ends with the hub.
func (h *Hub) tick() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-t.C:
			h.clients.pingSome()
			h.cool()
			h.countDrops()
			h.unfinished.expire()
			h.warnUnfinished(&h.unfinished)
		}
	}
}

// cool lets rates fall, and frees the channels that nothing needs.
func (h *Hub) cool() {
	r := &h.report
	r.mu.Lock()
	hot := r.hot
	r.hot = nil
	r.mu.Unlock()
	kept := hot[:0]
	for _, ch := range hot {
		ch.mu.Lock()
		if c := ch.countLocked(); c != ch.reported && !ch.dirty {
			ch.dirty = true
			r.touch(ch, true, false)
		}
		stays := !ch.freed && (ch.rate != nil || ch.dirty || len(ch.subs) == 0)
		if !stays {
			ch.hot = false
		}
		ch.mu.Unlock()
		if stays && !h.channels.free(ch) {
			kept = append(kept, ch)
		}
	}
	r.mu.Lock()
	r.hot = append(r.hot, kept...)
	r.mu.Unlock()
}

// reportEachSecond keeps the Store informed: that is the heartbeat. Now and then
// it asks for the other replicas', and sends a canary. It ends with the hub.
func (h *Hub) reportEachSecond() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-h.ctx.Done():
			return
		case <-t.C:
			if h.mesh != nil && n%lookEvery == 0 {
				h.lookAround() // before the heartbeat: who else has reported under this name?
			}
			err := h.flush(h.ctx, true)
			if h.ctx.Err() == nil {
				h.reported.Store(true)
				if h.storeBad.Swap(err != nil) && err == nil {
					h.storeIsBack()
				}
			}
			if err != nil {
				h.warnStore(err)
			}
			if n%int(canaryPeriod/time.Second) == 0 {
				h.storeCanary()
			}
		}
	}
}

// lookEvery is how many seconds pass between two looks at who is there.
const lookEvery = 2
