package channels

import (
	"net/http"
	"reflect"
	"strings"
	"time"
)

// unwrap returns the ResponseWriter that w wraps, or nil if w does not tell.
func unwrap(w http.ResponseWriter) http.ResponseWriter {
	if u, ok := w.(interface{ Unwrap() http.ResponseWriter }); ok {
		return u.Unwrap()
	}
	return nil
}

// innermost returns the ResponseWriter that all others wrap. If it lacks a method,
// a wrapper's own has nothing to call.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for next := unwrap(w); next != nil; next = unwrap(w) {
		w = next
	}
	return w
}

const wrapped = "a middleware of this server wraps the http.ResponseWriter in a %T, which hides its %s method, so no %s can be opened; " +
	"give that type a method Unwrap() http.ResponseWriter that returns what it wraps, or mount the hub outside of that middleware"

// isForeign reports whether a ResponseWriter is not one of net/http's, and does not
// say that it wraps one.
func isForeign(w http.ResponseWriter) bool {
	switch w.(type) {
	case interface{ SetWriteDeadline(time.Time) error }, interface{ EnableFullDuplex() error }:
		return false
	}
	return true
}

// canStream returns nil if what is written to w is sent at once, as far as can be
// known. If a Flush does nothing, the client would wait for ever.
func (h *Hub) canStream(w http.ResponseWriter) error {
	inner := innermost(w)
	switch inner.(type) {
	case http.Flusher, interface{ FlushError() error }:
	default:
		return errNotFlushable.saying(wrapped, inner, "Flush", "stream of server-sent events").because(http.ErrNotSupported)
	}
	if !isForeign(inner) {
		return nil
	}
	t := reflect.TypeOf(inner)
	if flushesNothing(t) {
		return errNotFlushable.saying("this server's http.ResponseWriter is a %T, whose Flush does nothing, so no stream of server-sent events can be opened; "+
			"serve the hub with a net/http server of its own, or use fasthttp v1.67 or later (Fiber v3)", inner).because(http.ErrNotSupported)
	}
	h.warn.foreignWriter(t)
	return nil
}

// flushesNothing recognises the adaptor of fasthttp before v1.67, which Fiber v2
// uses.
func flushesNothing(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Name() == "netHTTPResponseWriter" && strings.HasSuffix(t.PkgPath(), "/fasthttpadaptor")
}
