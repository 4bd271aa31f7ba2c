package channels

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	origins "github.com/channels-go/channels/internal/origin"
	"github.com/channels-go/channels/internal/unread"
)

// refuse answers with an error as JSON.
func (h *Hub) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if err == errGone {
		return
	}
	e := visible(err, ErrInternal)
	if e.status() >= 500 && e.cause != nil {
		level := slog.LevelWarn // it will pass by itself
		if e.status() == http.StatusInternalServerError {
			level = slog.LevelError
		}
		h.log.Log(r.Context(), level, "refused", "path", r.URL.Path, "err", e)
	}
	WriteError(w, r, e)
}

// WriteError answers a request as the hub does where it refuses one: with
// {"status":"fail","error":{"code","message"}} and the error's HTTP status. It
// is for the app's own middleware, so that clients know one form of errors.
// An error that is not, and does not wrap, an [*Error] becomes "internal".
//
// The statuses 503 and 429 will pass by themselves: they get a Retry-After of
// 2 to 5 s, at random, where none is set. Who accepts text/event-stream gets
// them as a stream that ends at once and asks to come back, since an EventSource
// gives up after an error.
//
// A browser tells a script nothing of a WebSocket that was refused. To the
// pages that may know, WriteError opens one, says there what is wrong, and
// closes it with 3000 for the status 401, 1013 for what passes, 1011 for other
// 5xx, and 3003 for all else.
//
// The status of such a stream is 200, and of such a WebSocket 101. For its log, a
// middleware's ResponseWriter may have a method Refused(status int, code string),
// which is told of what it was in truth.
//
// Where the request's body was not read, the answer is sent at once, and the
// connection closed: a client that never sends it would never get the answer.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	e := visible(err, ErrInternal)
	for next := w; next != nil; next = unwrap(next) {
		if n, ok := next.(interface{ Refused(status int, code string) }); ok {
			n.Refused(e.status(), e.Code)
		}
	}
	unread.Leave(w, r)
	boundAnswer(w, refusalTimeout)
	passes := e.passes()
	if passes && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", retryAfter())
	}
	switch {
	case isUpgrade(r):
		if refuseWebSocket(w, r, e) {
			return
		}
	case passes && r.Method == http.MethodGet && wantsStream(r):
		refuseStream(w, e)
		return
	}
	status, b := marshal(e.status(), failure{"fail", errorBody{e.Code, e.Message}})
	sendJSON(w, status, b, refusalTimeout, boundAnswer)
}

type failure struct {
	Status string    `json:"status"`
	Error  errorBody `json:"error"`
}

type errorBody struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// retryAfter is the value of Retry-After where nothing better is known.
func retryAfter() string {
	return strconv.Itoa(int(math.Ceil(spread(3 * time.Second).Seconds())))
}

// refusals are the refused WebSockets that wait for their clients' answer. Each
// takes a goroutine and about 20 KB, for closeTimeout at the most. Those beyond
// maxRefusals get the HTTP error, of which a script learns nothing.
var refusals atomic.Int32

const maxRefusals = 256

// refuseWebSocket tells a page why it gets no WebSocket: it opens one, and
// closes it. It returns false where nothing was written, and nothing more than
// the HTTP error can be.
func refuseWebSocket(w http.ResponseWriter, r *http.Request, e *Error) bool {
	if !mayTell(w, r) || e.Code == errBadHandshake.Code || e.status() == http.StatusMisdirectedRequest ||
		r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) || r.ContentLength != 0 || checkHandshake(w, r) != nil {
		return false
	}
	defer refusals.Add(-1)
	if refusals.Add(1) > maxRefusals {
		return false
	}
	u := &upgradeWriter{ResponseWriter: w}
	nc, _, err := u.hijack()
	if err != nil {
		return false
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(closeTimeout))
	if _, err := nc.Write(appendRefusal(nil, r, e)); err != nil {
		return true
	}
	// What comes meanwhile is taken, and the client's close frame: to close with
	// something unread would make the system throw away what is on its way.
	if c, ok := nc.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		io.CopyN(io.Discard, nc, maxAfterRefusal)
	}
	return true
}

// maxAfterRefusal bounds what is taken of a client that was refused.
const maxAfterRefusal = 64 << 10

// appendRefusal appends the handshake's answer, the error, and a close frame.
func appendRefusal(b []byte, r *http.Request, e *Error) []byte {
	accept := sha1.Sum([]byte(strings.TrimSpace(r.Header.Get("Sec-WebSocket-Key")) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455 section 4.2.2
	b = fmt.Appendf(b, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n",
		base64.StdEncoding.EncodeToString(accept[:]))
	if p := withoutOtherProtocols(r).Header.Get("Sec-WebSocket-Protocol"); p != "" {
		b = fmt.Appendf(b, "Sec-WebSocket-Protocol: %s\r\n", p)
	}
	b = append(b, "\r\n"...)
	b = append(b, newErrorFrame(e, nil).ws...)
	return append(b, newCloseFrame(e.closeCode(), e.Code).ws...)
}

// mayTell tells whether a page may know why it is refused: one of this host, or
// of an origin that CORS lets read the answer. To others it would tell whether
// their visitor is signed in here. What is no browser reads the HTTP error.
func mayTell(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	if w.Header().Get("Access-Control-Allow-Origin") == origin {
		return true
	}
	return origins.SameHost(origin, r.Host, r.TLS != nil)
}
