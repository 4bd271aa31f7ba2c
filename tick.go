package channels

import "time"

// tick does what the hub does once a second: it pings some connections, lets
// rates fall, and ends what takes too long. It never waits. It ends with the hub.
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

// cool lets rates fall, and frees the channels that are not needed any more.
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

// reportEachSecond reports to the Store, which is this replica's heartbeat. Every
// few seconds it also asks for the other replicas and sends the Store a canary. It
// ends with the hub.
func (h *Hub) reportEachSecond() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-h.ctx.Done():
			return
		case <-t.C:
			if h.mesh != nil && n%lookEvery == 0 {
				h.lookAround() // before the heartbeat, to find another replica with this id
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

// lookEvery is how often the Store is asked for the other replicas, in seconds.
const lookEvery = 2
