package store

// Bytes is the estimate that is kept below MaxBytes.
func (m *Memory) Bytes() int64 { return m.bytes.Load() }

// Logs is how many logs are held, those without entries too.
func (m *Memory) Logs() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.byName)
}
