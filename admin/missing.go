package admin

import "time"

// missingLong is for how long fewer replicas than wanted may be ready before the page
// turns yellow: replicas take a while to start.
const missingLong = 10 * time.Second

// missing knows since when fewer replicas than wanted have been ready, so that a page
// that is opened later knows it too.
type missing struct {
	born time.Time // when this process began to serve the page

	since  time.Time // zero if none are missing
	wanted int
	heard  time.Time // when that was last known: by an answer or an order
}

// answered notes what the Scaler says. If this process has not heard of it for a while,
// replicas may have been missing for days, and another one may have been asked meanwhile:
// it takes the longest time that it cannot rule out. So a page may be yellow too early
// for a moment, but is never green while a replica has been missing for long.
func (m *missing) answered(now time.Time, ready, wanted int) {
	switch {
	case ready >= wanted:
		m.since = time.Time{}
	case now.Sub(m.heard) > missingLong:
		m.since = m.born
	case m.since.IsZero() || wanted != m.wanted:
		m.since = now
	}
	m.wanted, m.heard = wanted, now
}

// ordered notes that somebody has scaled: what is missing has time to start again.
// Whether any is, the Scaler says with its next answer.
func (m *missing) ordered(now time.Time, wanted int) {
	m.since, m.wanted, m.heard = time.Time{}, wanted, now
}

// late reports whether replicas have been missing for so long that they do not just start.
func (m *missing) late(now time.Time) bool {
	return !m.since.IsZero() && now.Sub(m.since) > missingLong
}
