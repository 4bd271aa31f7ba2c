package store

import (
	"container/list"
	"strings"
	"time"
)

// find returns the log of a channel, or nil.
func (m *Memory) find(channel string) (*memLog, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed.Load() {
		return nil, ErrClosed
	}
	return m.byName[channel], nil
}

// logFor returns the log of a channel, which it makes where there is none.
func (m *Memory) logFor(channel string) (*memLog, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed.Load() {
		return nil, ErrClosed
	}
	l := m.byName[channel]
	if l == nil {
		l = &memLog{name: strings.Clone(channel)}
		l.el = m.live.PushFront(l)
		m.byName[l.name] = l
		m.bytes.Add(logCost(l.name))
	}
	return l, nil
}

// touch makes l the last appended log; the caller holds l.mu. It returns
// other logs (or nil) that are due for a look at what has expired.
func (m *Memory) touch(l *memLog) (stale [3]*memLog, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed.Load() {
		return stale, ErrClosed
	}
	if l.isBare {
		m.unlinkLocked(l)
		l.el = m.live.PushFront(l)
	} else {
		m.skipLocked(l)
		m.live.MoveToFront(l.el)
	}

	// A log whose entries live long must not hide those in front of it, so
	// the cursor goes round all that are live. The bare ones are in order.
	for i := range 2 {
		if m.cursor == nil {
			m.cursor = m.live.Back()
		}
		if other := logAt(m.cursor); other != l {
			stale[i] = other
		}
		m.cursor = m.cursor.Prev()
	}
	stale[2] = logAt(m.bare.Back())
	return stale, nil
}

// tidy drops what has expired in logs. It leaves a log alone that is in use,
// so that appending to one channel never waits for another one.
func (m *Memory) tidy(logs [3]*memLog, now time.Duration) {
	for _, l := range logs {
		if l == nil || !l.mu.TryLock() {
			continue
		}
		if !l.gone {
			m.bytes.Add(-l.expire(now))
			m.settle(l)
		}
		l.mu.Unlock()
	}
}

// settle puts l where it belongs after it lost something; the caller holds
// l.mu. It reports whether l was moved.
func (m *Memory) settle(l *memLog) bool {
	if !l.empty() {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed.Load() || l.gone:
		return false
	case l.epoch == "":
		m.dropLocked(l)
		return true
	case !l.isBare && l.el == m.live.Back():
		m.unlinkLocked(l)
		l.el, l.isBare = m.bare.PushFront(l), true
		m.bareBytes += logCost(l.name)
		return true
	}
	return false
}

// evict drops what was not appended to for the longest time until MaxBytes is
// kept. One goroutine does it for all: the others need not wait, since it
// looks again after it has let go of the lock.
func (m *Memory) evict() {
	for m.bytes.Load() > m.maxBytes && m.evicting.TryLock() {
		progress := m.evictSome()
		m.evicting.Unlock()
		if !progress {
			return
		}
	}
}

// evictSome takes the excess from one log, or as much of it as that log has.
// It returns false where nothing is left to be evicted.
func (m *Memory) evictSome() bool {
	excess := m.bytes.Load() - m.maxBytes
	if excess <= 0 {
		return true
	}
	m.mu.Lock()
	if m.closed.Load() {
		m.mu.Unlock()
		return false
	}
	oldest, bare := logAt(m.live.Back()), logAt(m.bare.Back())
	newest := m.live.Len() == 1
	crowded := m.bareBytes > m.maxBytes/2
	m.mu.Unlock()

	if oldest != nil && !crowded {
		oldest.mu.Lock()
		freed := oldest.shrink(excess, newest)
		m.bytes.Add(-freed)
		moved := m.settle(oldest)
		oldest.mu.Unlock()
		if freed > 0 || moved || !newest {
			return true
		}
	}
	if bare == nil {
		return false
	}
	bare.mu.Lock()
	defer bare.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed.Load() && bare.isBare && !bare.gone {
		m.dropLocked(bare)
	}
	return true
}

// dropLocked forgets a log that is empty. The caller holds l.mu too.
func (m *Memory) dropLocked(l *memLog) {
	m.unlinkLocked(l)
	delete(m.byName, l.name)
	m.bytes.Add(-logCost(l.name))
	l.gone = true
}

// unlinkLocked takes l out of its list. The caller holds l.mu too.
func (m *Memory) unlinkLocked(l *memLog) {
	if l.isBare {
		m.bare.Remove(l.el)
		m.bareBytes -= logCost(l.name)
		l.isBare = false
		return
	}
	m.skipLocked(l)
	m.live.Remove(l.el)
}

// skipLocked moves the cursor on, if it is at l.
func (m *Memory) skipLocked(l *memLog) {
	if m.cursor == l.el {
		m.cursor = l.el.Prev()
	}
}

func logAt(el *list.Element) *memLog {
	if el == nil {
		return nil
	}
	return el.Value.(*memLog)
}
