package zmqmesh

import "time"

// Twins are two living replicas with one id.

// twinPeriod is how long a twin is reported after it was last met. It dials, or
// is dialled, every 2 seconds.
const twinPeriod = 10 * time.Second

// meetTwin notes that another living replica has this one's id. That one has
// proved that it knows the key, if there is one: what strangers say of themselves
// does not count.
func (m *Mesh) meetTwin(address string) {
	now := time.Now()
	m.twinMet.Store(&now)
	if m.twinsWarned.Now(time.Minute) {
		m.log.Error("mesh: another replica has this one's id, so the two are not linked: each must have its own (Options.ReplicaID)", "id", m.opts.ReplicaID, "address", address)
	}
}

func (m *Mesh) hasTwin() bool {
	met := m.twinMet.Load()
	return met != nil && time.Since(*met) < twinPeriod
}

// warnTwins logs, at most once a minute, that the life of a replica has come back
// after another life had taken its place. The life before a restart never does.
func (m *Mesh) warnTwins(id, one, other string) {
	if m.twinsWarned.Now(time.Minute) {
		m.log.Error("mesh: two replicas have the same id, so each takes the other's place again and again: each must have its own (Options.ReplicaID)", "peer", id, "address", one, "other", other)
	}
}
