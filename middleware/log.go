package middleware

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels"
)

// LogOptions configures [Log].
type LogOptions struct {
	// Logger writes the records. Default: slog.Default().
	Logger *slog.Logger
	// Level is the level of the records. Default: info.
	Level slog.Level
	// Skip reports whether a request is not logged, for instance a probe.
	// Default: all requests are logged.
	Skip func(r *http.Request) bool
}

// Log returns a new RequestLog.
func Log(o LogOptions) *RequestLog {
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return &RequestLog{opts: o, open: make(map[string]*logEntry)}
}

// A RequestLog writes one record for each request when it ends, and for each
// WebSocket of a hub when that ends. All methods may be called concurrently. A
// record "request" has
//
//	method, path, status, duration, bytes_in, bytes_out (of the bodies),
//	remote (Request.RemoteAddr), user (Identity.ID, if there is one),
//	code (of the error, if channels.WriteError refused the request),
//	aborted (true if the handler panicked)
//
// A refusal may be sent over a WebSocket or stream that ends at once, so that a
// page can read the reason. Such a record is a "request" and has the refusal's
// status and code. The record of a hub's event stream also has messages_out.
// The record "websocket" has the same attributes with the connection's totals
// (see [channels.Traffic]), and messages_in, messages_out, client (the
// connection's id) and reason (why the hub ended it; absent if the client
// left). No record has headers, queries or bodies, since they may hold secrets.
//
// Handler alone logs a WebSocket when it begins, since the connection outlives
// the handler. To get one record for all of it at its end, set OnConnect and
// OnDisconnect as the hub's hooks. That takes about 300 bytes for each
// WebSocket.
type RequestLog struct {
	opts LogOptions

	mu   sync.Mutex // guards the field below
	open map[string]*logEntry
}

// A logEntry is one request. For a WebSocket, it outlives the handler, so it
// must not keep the server's memory: its strings are copies, since a part of
// the request line would keep the whole line.
type logEntry struct {
	start                time.Time
	method, path, remote string

	mu       sync.Mutex // guards the fields below, since handlers may start goroutines
	user     string
	client   string // the id of the hub's connection
	hijacked bool
	sent     int64 // messages of an event stream
}

type logKey struct{}

// noteUser tells the log around a middleware which user it found.
func noteUser(ctx context.Context, user string) {
	if e, ok := ctx.Value(logKey{}).(*logEntry); ok {
		e.mu.Lock()
		e.user = user
		e.mu.Unlock()
	}
}

// Handler logs the requests that next serves. Put it around all other
// middlewares except [TrustProxies], so that it sees what they refuse.
func (l *RequestLog) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l.opts.Skip != nil && l.opts.Skip(r) {
			next.ServeHTTP(w, r)
			return
		}
		e := &logEntry{start: time.Now(), method: strings.Clone(clip(r.Method)), path: strings.Clone(clip(r.URL.Path)), remote: r.RemoteAddr}
		if id, ok := channels.IdentityFrom(r.Context()); ok {
			e.user = id.ID
		}
		rw, rec := record(w, func(net.Conn) {
			e.mu.Lock()
			e.hijacked = true
			e.mu.Unlock()
		})
		r = r.WithContext(context.WithValue(r.Context(), logKey{}, e))
		var body *countingBody
		if r.Body != nil && r.Body != http.NoBody {
			body = &countingBody{ReadCloser: r.Body}
			r.Body = body
		}
		aborted := true
		defer func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			switch {
			case e.hijacked && e.client != "" && rec.code == "":
				return // OnDisconnect logs it
			case e.client != "":
				l.forget(e.client)
			}
			status := cmp.Or(rec.truth, rec.status)
			if status == 0 && !aborted {
				status = http.StatusOK
			}
			a := e.attrs(status, body.count(), rec.bytes)
			if rec.code != "" {
				a = append(a, slog.String("code", rec.code))
			}
			if e.sent > 0 {
				a = append(a, slog.Int64("messages_out", e.sent))
			}
			if aborted {
				a = append(a, slog.Bool("aborted", true))
			}
			l.opts.Logger.LogAttrs(r.Context(), l.opts.Level, "request", a...)
		}()
		next.ServeHTTP(rw, r)
		aborted = false
	})
}

func (e *logEntry) attrs(status int, in, out int64) []slog.Attr {
	a := []slog.Attr{slog.String("method", e.method), slog.String("path", e.path), slog.Int("status", status), slog.Duration("duration", time.Since(e.start)),
		slog.Int64("bytes_in", in), slog.Int64("bytes_out", out), slog.String("remote", e.remote)}
	if e.user != "" {
		a = append(a, slog.String("user", clip(e.user)))
	}
	return a
}

// OnConnect is for [channels.Options].OnConnect. It remembers which request a
// connection came with, and refuses none. Your own hook may call it.
func (l *RequestLog) OnConnect(ctx context.Context, c channels.Client) error {
	if e, ok := ctx.Value(logKey{}).(*logEntry); ok {
		e.mu.Lock()
		e.client, e.user = c.ID, c.Identity.ID
		e.mu.Unlock()
		l.mu.Lock()
		l.open[c.ID] = e
		l.mu.Unlock()
	}
	return nil
}

// OnDisconnect is for [channels.Options].OnDisconnect. It logs a WebSocket that
// has ended, and records for Handler how many messages an event stream has
// carried. Your own hook may call it.
func (l *RequestLog) OnDisconnect(c channels.Client, reason error) {
	e := l.forget(c.ID)
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.hijacked { // a stream or a failed handshake: Handler logs it
		e.sent = c.Sent.Messages
		return
	}
	a := append(e.attrs(http.StatusSwitchingProtocols, c.Received.Bytes, c.Sent.Bytes),
		slog.Int64("messages_in", c.Received.Messages), slog.Int64("messages_out", c.Sent.Messages), slog.String("client", c.ID))
	var code *channels.Error
	switch {
	case errors.As(reason, &code):
		a = append(a, slog.String("reason", code.Code))
	case reason != nil:
		a = append(a, slog.String("reason", clip(reason.Error())))
	}
	l.opts.Logger.LogAttrs(context.Background(), l.opts.Level, "websocket", a...)
}

// forget removes and returns what OnConnect has remembered, or nil.
func (l *RequestLog) forget(client string) *logEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.open[client]
	delete(l.open, client)
	return e
}

// countingBody counts the bytes read from a request's body. It is safe for
// concurrent use: a handler, for instance a reverse proxy, may return while its
// goroutine still reads.
type countingBody struct {
	io.ReadCloser
	n atomic.Int64
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

func (b *countingBody) count() int64 {
	if b == nil {
		return 0
	}
	return b.n.Load()
}
