package middleware

// Len is how many addresses, users and connections a Limiter remembers.
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

// Open is how many connections a RequestLog remembers.
func (l *RequestLog) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}
