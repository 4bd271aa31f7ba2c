package channels

import (
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/answer"
	"github.com/channels-go/channels/internal/backoff"
	"github.com/channels-go/channels/internal/fanout"
	origins "github.com/channels-go/channels/internal/origin"
	"github.com/channels-go/channels/internal/unread"
)

// refuse answers with an error as JSON.
func (h *Hub) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if err == errGone {
		return
	}
	e := visible(err, ErrInternal)
	if staying(r) {
		h.stats.handshakes.add(codeOf(err))
	} else {
		h.stats.refusals.add(codeOf(err))
	}
	if e.status() >= 500 && e.cause != nil {
		level := slog.LevelWarn // it passes by itself
		if e.status() == http.StatusInternalServerError {
			level = slog.LevelError
		}
		h.log.Log(r.Context(), level, "refused", "path", r.URL.Path, "err", e)
	}
	WriteError(w, r, e)
}

// staying reports whether a request wants to become a connection.
func staying(r *http.Request) bool {
	return isUpgrade(r) || wantsStream(r) || strings.HasSuffix(r.URL.Path, pathEvents) ||
		strings.HasSuffix(r.URL.Path, pathConnectEvents) || strings.HasSuffix(r.URL.Path, pathConnectLines)
}

// WriteError refuses a request as the hub does: with
// {"status":"fail","error":{"code","message"}} and the error's HTTP status. The
// app's own middleware can use it, so that clients get errors in one form. An
// error that neither is nor wraps an [*Error] becomes "internal".
//
// The statuses 503 and 429 are temporary. They get a Retry-After of 2 to 5 s, at
// random, unless one is set. A client that accepts text/event-stream gets them
// as a stream that ends at once and asks it to reconnect, since an EventSource
// never reconnects after an error.
//
// A browser does not tell a script why a WebSocket was refused. If the page may
// know, WriteError opens the WebSocket, sends the error, and closes it: with
// 3000 for the status 401, 1013 for 503 and 429, 1011 for other 5xx, and 3003
// for the rest.
//
// Such a stream has the status 200, and such a WebSocket 101. A middleware that
// logs may give its ResponseWriter a method Refused(status int, code string),
// which gets the status that was meant.
//
// If the request's body was not read, the answer is sent at once and the
// connection is closed: a client that never sends its body would never get it. It is
// closed, too, after [ErrDraining] and [ErrClosed]: a browser that keeps connections
// would come back to this replica.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	e := visible(err, ErrInternal)
	for next := w; next != nil; next = unwrap(next) {
		if n, ok := next.(interface{ Refused(status int, code string) }); ok {
			n.Refused(e.status(), e.Code)
		}
	}
	unread.Leave(w, r)
	boundAnswer(w, refusalTimeout)
	if e.Code == ErrDraining.Code || e.Code == ErrClosed.Code {
		w.Header().Set("Connection", "close") // or the client would ask this replica again
	}
	passes := e.passes()
	if passes && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(backoff.Spread(3*time.Second).Seconds()))))
	}
	switch {
	case isUpgrade(r):
		if refuseWebSocket(w, r, e) {
			return
		}
	case passes && r.Method == http.MethodGet && wantsStream(r) && !strings.HasSuffix(r.URL.Path, pathConnectEvents): // whose clients come again after any HTTP error
		refuseStream(w, r, e)
		return
	}
	status, b := marshal(e.status(), answer.Refused(e.Code, e.Message))
	sendJSON(w, status, b, refusalTimeout, boundAnswer)
}

// refusals counts the refused WebSockets that wait for their clients' close
// frame. Each takes a goroutine and about 20 KB, for closeTimeout at most. Beyond
// maxRefusals, clients get the HTTP error, which a script cannot read.
var refusals atomic.Int32

const maxRefusals = 256

// refuseWebSocket tells a page why it gets no WebSocket: it opens one, sends the
// error and closes it. If it returns false, it has written nothing, and the
// caller sends the HTTP error.
func refuseWebSocket(w http.ResponseWriter, r *http.Request, e *Error) bool {
	if strings.HasSuffix(r.URL.Path, pathConnect) { // whose clients come again after any HTTP error
		return false
	}
	if !mayTell(w, r) || e.Code == errBadHandshake.Code || e.status() == http.StatusMisdirectedRequest ||
		r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) || r.ContentLength != 0 || checkHandshake(w, r) != nil {
		return false
	}
	defer refusals.Add(-1)
	if refusals.Add(1) > maxRefusals {
		return false
	}
	u := hijacker{ResponseWriter: w}
	nc, _, err := u.hijack()
	if err != nil {
		return false
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(closeTimeout))
	if _, err := nc.Write(appendRefusal(nil, r, e)); err != nil {
		return true
	}
	// Read what the client sends, and its close frame: if a socket is closed
	// with something unread, the system discards what is still to be sent.
	if c, ok := nc.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		io.CopyN(io.Discard, nc, maxAfterRefusal)
	}
	return true
}

// maxAfterRefusal bounds what is read from a client that was refused.
const maxAfterRefusal = 64 << 10

// appendRefusal appends the answer to the handshake, the error, and a close frame.
func appendRefusal(b []byte, r *http.Request, e *Error) []byte {
	b = appendSwitch(b, r, chosen(r, channelProtocols), false)
	b = append(b, "\r\n"...)
	b = append(b, newErrorFrame(e, nil).Bytes(fanout.WebSocket)...)
	return append(b, newCloseFrame(e.closeCode(), e.Code).Bytes(fanout.WebSocket)...)
}

// mayTell reports whether a page may know why it is refused: if it is of this host,
// or of an origin that CORS lets read the answer. Other pages could learn whether
// their visitor is signed in here. Programs that are not browsers can read the
// HTTP error.
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
