package middleware

// Len returns the number of addresses, users and connections that l remembers.
func (l *Limiter) Len() (n int) {
	if l.address != nil {
		n += l.address.len()
	}
	if l.user != nil {
		n += l.user.len()
	}
	if l.connection != nil {
		n += l.connection.len()
	}
	return n
}

// Open returns the number of connections that l remembers.
func (l *RequestLog) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}
