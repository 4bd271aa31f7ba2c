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

// cool lets the rates of some channels fall, and frees those that are not needed any more.
func (h *Hub) cool() {
	r := &h.report
	r.mu.Lock()
	n := share(len(r.hot))
	var hot []*channel
	hot, r.hot = r.hot[:n:n], r.hot[n:]
	r.mu.Unlock()
	kept := hot[:0]
	for _, ch := range hot {
		ch.mu.Lock()
		if ch.due == notDue && ch.countLocked() != ch.reported {
			r.touch(ch, dueNext, false)
		}
		falls := ch.rate.total > 0
		stays := !ch.freed && (falls || ch.due != notDue || len(ch.subs) == 0)
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
	clear(hot)
}
