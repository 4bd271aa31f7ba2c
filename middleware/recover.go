package middleware

import (
	"cmp"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"

	"github.com/channels-go/channels"
)

// Recover logs a panic of an inner handler with its stack, at level error, and
// answers with 500 and the code "internal". If the answer has already begun, it
// aborts the connection instead, so that the client does not take the answer
// for complete. It closes a hijacked connection. A panic with
// http.ErrAbortHandler is passed on to the server, which handles it.
//
// A nil logger means slog.Default(). The hub itself recovers from panics in its
// hooks.
func Recover(log *slog.Logger) func(http.Handler) http.Handler {
	log = cmp.Or(log, slog.Default())
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var hijacked net.Conn
			rw, rec := record(w, func(nc net.Conn) { hijacked = nc })
			defer func() {
				p := recover()
				if p == nil {
					return
				}
				if p == http.ErrAbortHandler {
					if hijacked != nil {
						hijacked.Close()
					}
					panic(p)
				}
				log.ErrorContext(r.Context(), "panic", "method", clip(r.Method), "path", clip(r.URL.Path), "panic", p, "stack", string(debug.Stack()))
				switch {
				case hijacked != nil:
					hijacked.Close()
				case rec.status != 0:
					panic(http.ErrAbortHandler)
				default:
					for _, k := range []string{"Content-Length", "Content-Encoding", "Content-Range", "Etag", "Last-Modified"} {
						w.Header().Del(k) // they describe the answer that was not sent
					}
					channels.WriteError(w, r, channels.ErrInternal)
				}
			}()
			next.ServeHTTP(rw, r)
		})
	}
}

// clip limits the length of a client's text in the log.
func clip(s string) string {
	const most = 500
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
