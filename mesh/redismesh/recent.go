package redismesh

// recent is a map that forgets what was not set for longest, half of it at a
// time, so that it never holds more than max. The zero value has no max yet.
type recent[K comparable, V any] struct {
	now, before map[K]V // what was set since it last forgot; since the time before
	max         int
	forgot      bool // something
}

func (r *recent[K, V]) get(k K) (v V, ok bool) {
	if v, ok = r.now[k]; !ok {
		v, ok = r.before[k]
	}
	return v, ok
}

func (r *recent[K, V]) set(k K, v V) {
	if _, ok := r.now[k]; !ok {
		delete(r.before, k)
		if len(r.now) >= r.max/2 {
			r.forgot = r.forgot || len(r.before) > 0
			r.now, r.before = nil, r.now
		}
		if r.now == nil {
			r.now = make(map[K]V)
		}
	}
	r.now[k] = v
}
