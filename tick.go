package channels

// tick does what the hub does once a second, besides pings: it lets rates fall, has silent
// clients' readers rest, and ends what takes too long. It never waits.
func (h *Hub) tick() {
	h.fan.Tick()
	h.talkers.hush()
	for _, c := range h.clients.stale() {
		c.session.end(endStale, errSilent)
	}
	h.forwarded.Store(0)
	h.cool()
	h.countDrops()
	h.notePauses()
	h.usage.measure(histogramOf(&h.fan.Latency))
	h.unfinished.expire()
	h.warn.cutShort(&h.unfinished.cut)
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
		falls := ch.rate != nil
		stays := !ch.freed && (falls || ch.dirty || len(ch.subs) == 0)
		if !stays {
			ch.hot = false
		}
		ch.mu.Unlock()
		if stays && (falls || !h.channels.free(ch)) {
			kept = append(kept, ch)
		}
	}
	r.mu.Lock()
	r.hot = append(r.hot, kept...)
	r.mu.Unlock()
}
