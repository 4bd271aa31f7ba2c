package channels_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// hiding hides all optional methods of the server's ResponseWriter, as careless
// middleware does.
type hiding struct{ http.ResponseWriter }

// unwrapping has an Unwrap, as http.ResponseController expects.
type unwrapping struct{ http.ResponseWriter }

func (u unwrapping) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// ginStyle behaves as gin's writer: WriteHeader only notes the status, which is sent
// with the first byte of the body or with WriteHeaderNow.
type ginStyle struct {
	http.ResponseWriter
	size, status int
}

func (w *ginStyle) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *ginStyle) WriteHeader(code int) {
	if code > 0 && w.size == -1 {
		w.status = code
	}
}

func (w *ginStyle) WriteHeaderNow() {
	if w.size == -1 {
		w.size = 0
		w.ResponseWriter.WriteHeader(w.status)
	}
}

func (w *ginStyle) Write(b []byte) (int, error) {
	w.WriteHeaderNow()
	n, err := w.ResponseWriter.Write(b)
	w.size += n
	return n, err
}

func (w *ginStyle) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.size > 0 {
		return nil, nil, errors.New("hijack after a write")
	}
	w.size = max(w.size, 0)
	return w.ResponseWriter.(http.Hijacker).Hijack()
}

func (w *ginStyle) Flush() {
	w.WriteHeaderNow()
	w.ResponseWriter.(http.Flusher).Flush()
}

func newGinStyle(w http.ResponseWriter) *ginStyle { return &ginStyle{w, -1, http.StatusOK} }

// lying always has a Hijack method, which fails if the writer below has none.
type lying struct{ http.ResponseWriter }

func (l lying) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if h, ok := l.ResponseWriter.(http.Hijacker); ok {
		return h.Hijack()
	}
	return nil, nil, errors.New("the inner writer cannot be hijacked")
}

// echoing behaves as echo's writer: it has all methods, and its Flush panics if the
// writer below has none.
type echoing struct{ lying }

func (e echoing) Unwrap() http.ResponseWriter { return e.lying.ResponseWriter }

func (e echoing) Flush() {
	if err := http.NewResponseController(e.lying.ResponseWriter).Flush(); err != nil {
		panic(err)
	}
}

func wrap(f func(http.ResponseWriter) http.ResponseWriter) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w = f(w)
			next.ServeHTTP(w, r)
			if g, ok := w.(*ginStyle); ok {
				g.WriteHeaderNow() // as gin's engine does in the end
			}
		})
	}
}

func TestWritersThatWrapOthers(t *testing.T) {
	for name, f := range map[string]func(http.ResponseWriter) http.ResponseWriter{
		"with Unwrap":              func(w http.ResponseWriter) http.ResponseWriter { return unwrapping{w} },
		"with Unwrap, twice":       func(w http.ResponseWriter) http.ResponseWriter { return unwrapping{unwrapping{w}} },
		"in the style of gin":      func(w http.ResponseWriter) http.ResponseWriter { return newGinStyle(w) },
		"with Unwrap around gin":   func(w http.ResponseWriter) http.ResponseWriter { return unwrapping{newGinStyle(w)} },
		"with a Hijack of its own": func(w http.ResponseWriter) http.ResponseWriter { return lying{w} },
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, channels.Options{}, wrap(f))
			c := s.dialRaw() // the handshake has to be answered before anything else is sent
			c.Upgrade("/channel/a/")
			w := s.join("a", "")
			w.send(`{"header":"x","body":1}`)
			w.want("x", `1`)
			w.want("exchange", `{"msg":"ok"}`)
			require.Equal(t, "x", c.Message().Header)

			s.handshake("/channel/a/", "Sec-WebSocket-Version: 8").wantFail(t, 400, "bad_handshake")
			s.get("/channel/a/").wantFail(t, 426, "upgrade_required")
			if name != "with a Hijack of its own" { // and without Flush
				e := s.stream("a", "")
				s.publish("a", "y", `2`)
				e.want("y", `2`)
				e.close()
			}
		})
	}
}

func TestWritersThatCannotBeHijacked(t *testing.T) {
	for name, c := range map[string]struct {
		f    func(http.ResponseWriter) http.ResponseWriter
		says string
	}{
		"hidden":                    {func(w http.ResponseWriter) http.ResponseWriter { return hiding{w} }, "channels_test.hiding"},
		"hidden below an unwrapper": {func(w http.ResponseWriter) http.ResponseWriter { return unwrapping{&hiding{w}} }, "*channels_test.hiding"},
		"hidden below a Hijack":     {func(w http.ResponseWriter) http.ResponseWriter { return echoing{lying{hiding{w}}} }, "channels_test.hiding"},
		"a Hijack that fails":       {func(w http.ResponseWriter) http.ResponseWriter { return lying{hiding{w}} }, "channels_test.lying, has a Hijack method that fails"},
	} {
		t.Run(name, func(t *testing.T) {
			left := make(departures, 2)
			s := serve(t, channels.Options{OnDisconnect: left.hook}, wrap(c.f))
			a := s.handshake("/channel/a/")
			a.wantFail(t, 500, "not_hijackable")
			require.Contains(t, a.message(), c.says)
			require.Contains(t, a.message(), "middleware")
			require.Contains(t, a.message(), "mount the hub outside of")
			require.Empty(t, a.header.Get("Upgrade"))
			require.Empty(t, a.header.Get("Sec-WebSocket-Accept"))
			require.Contains(t, s.log.String(), c.says, "an operator looks into the log")
			require.Error(t, <-left)
			require.Zero(t, s.hub.Stats().Connections)
			cnt, _ := s.numbers("a")
			require.Zero(t, cnt)
		})
	}
}

// crashing has a Hijack that panics, as gin's does if the writer below has none.
type crashing struct{ http.ResponseWriter }

func (crashing) Hijack() (net.Conn, *bufio.ReadWriter, error) { panic("no Hijacker below") }

func TestAHijackThatPanicsLeavesNobody(t *testing.T) {
	left := make(departures, 1)
	s := serve(t, channels.Options{Channel: keeps, OnDisconnect: left.hook},
		wrap(func(w http.ResponseWriter) http.ResponseWriter { return crashing{w} }))
	s.handshake("/channel/p/").wantFail(t, 500, "internal")
	require.ErrorContains(t, <-left, "no Hijacker below")
	require.Zero(t, s.hub.Stats().Connections)
	p, err := s.hub.Presence(t.Context(), "p", 0)
	require.NoError(t, err)
	require.Zero(t, p.Total)
}

// busy calls a function while its connection is hijacked.
type busy struct {
	http.ResponseWriter
	do func()
}

func (b busy) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	b.do()
	return b.ResponseWriter.(http.Hijacker).Hijack()
}

// The hub knows a client before its handshake is answered. What the hub does to its
// clients meanwhile does not race with the answer.
func TestWhileTheHandshakeIsAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*channels.Hub)
		code int
	}{
		"drain":      {func(h *channels.Hub) { h.Drain(context.Background()) }, 1001},
		"shutdown":   {func(h *channels.Hub) { h.Shutdown(context.Background()) }, 1001},
		"disconnect": {func(h *channels.Hub) { disconnect(h, channels.IDPrefix(h)+"1") }, 3003},
	} {
		t.Run(name, func(t *testing.T) {
			var hub *channels.Hub
			var wg sync.WaitGroup
			s := serve(t, channels.Options{ReplicaID: "n"}, wrap(func(w http.ResponseWriter) http.ResponseWriter {
				return busy{w, func() { wg.Go(func() { c.do(hub) }) }}
			}))
			hub = s.hub
			conn := s.upgrade("/channel/a/", "Sec-WebSocket-Extensions: permessage-deflate")
			s.hub.Publish(t.Context(), "a", msg("x", `"`+long(2000)+`"`)) // deflated, if it is in time
			conn.WantClosed(c.code)
			wg.Wait()
		})
	}
}
