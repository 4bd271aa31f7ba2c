package store

import (
	"container/list"
	"strings"
	"time"
)

// find returns the log of a channel, or nil if there is none and none is to be made.
func (m *Memory) find(channel string, create bool) (*memLog, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed.Load() {
		return nil, ErrClosed
	}
	l := m.byName[channel]
	if l == nil && create {
		l = &memLog{name: strings.Clone(channel)}
		l.el = m.live.PushFront(l)
		m.byName[l.name] = l
		m.bytes.Add(logCost(l.name))
	}
	return l, nil
}

// touch marks l as the last appended log. It returns up to three other logs
// that are due for a check for expired entries. The caller holds l.mu.
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

	// A log whose entries live long must not hide those in front of it, so the
	// cursor visits all live logs in turn. The bare ones are in order.
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

// tidy drops what has expired in logs. It skips a log that is in use, so that
// appending to one channel never waits for another one.
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

// settle moves l to the list it belongs to after it lost something, and reports
// whether it did. The caller holds l.mu.
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

// strip moves l, which has just begun, to the bare ones: however many logs begin, they
// push out the entries of others from no more than half of MaxBytes. The caller holds
// l.mu.
func (m *Memory) strip(l *memLog) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed.Load() {
		return
	}
	m.unlinkLocked(l)
	l.el, l.isBare = m.bare.PushFront(l), true
	m.bareBytes += logCost(l.name)
}

// evict drops the least recently appended data until MaxBytes is kept. One
// goroutine evicts for all. The others need not wait: that goroutine checks
// again after it has released the lock.
func (m *Memory) evict() {
	for m.bytes.Load() > m.maxBytes && m.evicting.TryLock() {
		progress := m.evictSome()
		m.evicting.Unlock()
		if !progress {
			return
		}
	}
}

// evictSome takes the excess from one log, or as much of it as that log has. It
// returns false if there is nothing left to evict.
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

// dropLocked forgets a log that is empty. The caller also holds l.mu.
func (m *Memory) dropLocked(l *memLog) {
	m.unlinkLocked(l)
	delete(m.byName, l.name)
	m.bytes.Add(-logCost(l.name))
	l.gone = true
}

// unlinkLocked takes l out of its list. The caller also holds l.mu.
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

// skipLocked moves the cursor on if it points to l.
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
