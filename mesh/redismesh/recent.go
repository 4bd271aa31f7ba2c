package redismesh

// recent is a map that never holds more than max entries. It forgets the
// entries that were not set for the longest time, half of them at once. Set max
// before use.
type recent[K comparable, V any] struct {
	now, before map[K]V // entries set since the last time it forgot; those from the time before
	max         int
	forgot      bool // an entry was forgotten
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
