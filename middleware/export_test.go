package middleware

// Len returns the number of addresses, users and connections that l remembers.
func (l *Limiter) Len() int { return l.address.len() + l.user.len() + l.connection.len() }

func (b *buckets[K]) len() (n int) {
	if b == nil {
		return 0
	}
	for i := range b.shards {
		n += len(b.shards[i].byKey)
	}
	return n
}

// Open returns the number of connections that l remembers.
func (l *RequestLog) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}
