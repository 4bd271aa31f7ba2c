package zmtptest

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
)

// A Log is a log that tests look into. Its zero value is ready.
type Log struct {
	mu  sync.Mutex // guards the field below
	all bytes.Buffer
}

// Logger returns a logger of all levels that writes here.
func (l *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

// Has reports whether s was logged.
func (l *Log) Has(s string) bool { return l.Count(s) > 0 }

// Count is how often s was logged.
func (l *Log) Count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.all.String(), s)
}

// Line is the first line that contains s, or "".
func (l *Log) Line(s string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.all.String()) {
		if strings.Contains(line, s) {
			return line
		}
	}
	return ""
}
