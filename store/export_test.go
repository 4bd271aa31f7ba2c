package store

// Bytes returns the estimate that is kept below MaxBytes.
func (m *Memory) Bytes() int64 { return m.bytes.Load() }

// Logs returns the number of logs held, including those without entries.
func (m *Memory) Logs() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.byName)
}
