package channels

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	origins "github.com/channels-go/channels/internal/origin"
)

// passes says that what is refused now may be granted later, without a change
// of the request.
func (e *Error) passes() bool {
	s := e.status()
	return s == http.StatusServiceUnavailable || s == http.StatusTooManyRequests
}

// closeCode is the code with which a WebSocket is closed that is refused.
func (e *Error) closeCode() websocket.StatusCode {
	switch {
	case e.passes():
		return closeTryAgain
	case e.status() == http.StatusUnauthorized:
		return closeUnauthorized
	case e.status() >= 500:
		return closeInternal
	}
	return closeForbidden
}

// retryAfter is the value of Retry-After where nothing better is known.
func retryAfter() string {
	return strconv.Itoa(int(math.Ceil(spread(3 * time.Second).Seconds())))
}

// isUpgrade tells whether a request wants to become a WebSocket.
func isUpgrade(r *http.Request) bool {
	return headerHas(r.Header, "Connection", "upgrade") && headerHas(r.Header, "Upgrade", "websocket")
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

// refererAllowed asks the only witness that there is where a browser says
// nothing else of where a GET comes from: over plain HTTP it sends Sec-Fetch-Site
// to no host but localhost. A page that hides itself there cannot be told from
// one of our own. It reads nothing, but its visitor is a member for a moment.
func (h *Hub) refererAllowed(r *http.Request) bool {
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		return true // checkOrigin has judged
	}
	u, err := url.Parse(r.Referer())
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return true
	}
	as := *r
	as.Header = http.Header{"Origin": {u.Scheme + "://" + u.Host}}
	_, ok := h.originAllowed(&as, nil, true)
	return ok
}
