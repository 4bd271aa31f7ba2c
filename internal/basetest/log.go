package basetest

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
)

// A Log is a log that tests look into. Its zero value is ready, and its methods may
// be called concurrently.
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

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// Has reports whether s was logged.
func (l *Log) Has(s string) bool { return l.Count(s) > 0 }

// Count is how often s was logged.
func (l *Log) Count(s string) int { return strings.Count(l.String(), s) }

// Line is the first line that contains s, or "".
func (l *Log) Line(s string) string {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, s) {
			return line
		}
	}
	return ""
}

// Records returns what was logged as JSON, without the times.
func (l *Log) Records() (all []map[string]any) {
	for line := range strings.Lines(l.String()) {
		var record map[string]any
		json.Unmarshal([]byte(line), &record) // it stays empty if the line is something else
		delete(record, "time")
		all = append(all, record)
	}
	return all
}
