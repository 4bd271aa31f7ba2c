package middleware

import (
	"bufio"
	"io"
	"iter"
	"net"
	"net/http"
)

// A recorder is a ResponseWriter that records what is written through it. Only
// the request's goroutine uses it.
type recorder struct {
	http.ResponseWriter
	status   int    // 0: nothing was written yet
	bytes    int64  // of the body
	code     string // of the refusal, if it has the hub's form
	truth    int    // the refusal's status; the status written may be a success
	onHijack func(net.Conn)
}

// record wraps w. The ResponseWriter that it returns has Flush and Hijack only
// if w has, since callers test for these methods.
func record(w http.ResponseWriter, onHijack func(net.Conn)) (http.ResponseWriter, *recorder) {
	rec := &recorder{ResponseWriter: w, onHijack: onHijack}
	switch flush, hijack := can[http.Flusher](w) || can[interface{ FlushError() error }](w), can[http.Hijacker](w); {
	case flush && hijack:
		return struct {
			*recorder
			flusher
			hijacker
		}{rec, flusher{rec}, hijacker{rec}}, rec
	case flush:
		return struct {
			*recorder
			flusher
		}{rec, flusher{rec}}, rec
	case hijack:
		return struct {
			*recorder
			hijacker
		}{rec, hijacker{rec}}, rec
	}
	return rec, rec
}

// can reports whether w, or a writer that it wraps, implements T.
func can[T any](w http.ResponseWriter) bool {
	for range all[T](w) {
		return true
	}
	return false
}

// all yields those that implement T: w, then what it wraps, the innermost last.
func all[T any](w http.ResponseWriter) iter.Seq[T] {
	return func(yield func(T) bool) {
		for w != nil {
			if t, ok := w.(T); ok && !yield(t) {
				return
			}
			u, ok := w.(interface{ Unwrap() http.ResponseWriter })
			if !ok {
				return
			}
			w = u.Unwrap()
		}
	}
}

// Refused is called by channels.WriteError.
func (rec *recorder) Refused(status int, code string) { rec.truth, rec.code = status, code }

// Unwrap is for http.ResponseController.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

func (rec *recorder) WriteHeader(status int) {
	if rec.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		rec.status = status
	}
	rec.ResponseWriter.WriteHeader(status)
}

func (rec *recorder) Write(b []byte) (int, error) {
	rec.begin()
	n, err := rec.ResponseWriter.Write(b)
	rec.bytes += int64(n)
	return n, err
}

// ReadFrom lets the server send a file without copying it.
func (rec *recorder) ReadFrom(r io.Reader) (int64, error) {
	rec.begin()
	n, err := io.Copy(rec.ResponseWriter, r)
	rec.bytes += n
	return n, err
}

func (rec *recorder) begin() {
	if rec.status == 0 {
		rec.status = http.StatusOK
	}
}

// CloseNotify exists because gin's Context.Stream calls it and panics without
// it. If no outer writer has it, the nil channel never fires.
func (rec *recorder) CloseNotify() <-chan bool {
	for c := range all[interface{ CloseNotify() <-chan bool }](rec.ResponseWriter) {
		return c.CloseNotify()
	}
	return nil
}

type flusher struct{ rec *recorder }

func (f flusher) Flush() { f.FlushError() }

// FlushError is what http.ResponseController looks for first.
func (f flusher) FlushError() error {
	f.rec.begin()
	return http.NewResponseController(f.rec.ResponseWriter).Flush()
}

type hijacker struct{ rec *recorder }

// Hijack returns the server's own connection without a wrapper, so that the hub
// can write to it directly. Like the hub, it tries all wrapped writers: one may
// have a Hijack method that always fails, and a caller that unwrapped further
// itself would bypass the recorder.
func (h hijacker) Hijack() (nc net.Conn, rw *bufio.ReadWriter, err error) {
	err = http.ErrNotSupported
	for w := range all[http.Hijacker](h.rec.ResponseWriter) {
		if nc, rw, err = w.Hijack(); err == nil {
			h.rec.status = http.StatusSwitchingProtocols
			h.rec.onHijack(nc)
			return nc, rw, nil
		}
	}
	return nil, nil, err
}
