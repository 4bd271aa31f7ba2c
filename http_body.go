package channels

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// body reads a request's body and calls f with it. The body may have any content
// type (curl -d sends a form's), but at most bound bytes, a time that depends on
// its length, and a share of MaxUnfinishedBytes. Call it only for a client that
// Authorize has let in.
func (h *Hub) body(w http.ResponseWriter, r *http.Request, bound int, f func(b []byte) error) error {
	for _, v := range r.Header["Content-Encoding"] {
		for coding := range strings.SplitSeq(v, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				w.Header().Set("Accept-Encoding", "identity") // RFC 9110 section 12.5.3
				return errBadEncoding.saying("the Content-Encoding is %.40q; compressed bodies are not supported; send the body as it is", coding)
			}
		}
	}
	tooLarge := func() error { return ErrTooLarge.saying("the request has more than %d bytes; "+sendLess, bound) }
	if r.ContentLength > int64(bound) {
		return tooLarge()
	}
	size := bound
	if r.ContentLength >= 0 {
		size = int(r.ContentLength)
	}
	buf := newInbound(claim{budget: &h.unfinished, w: w})
	defer buf.done()
	// The server's own ReadTimeout does not depend on the length. If a
	// middleware hides the deadlines, it remains.
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.unfinished.timeFor(size)))
	var err error
	for err == nil && len(buf.b) <= bound {
		buf.grow(size)
		if err = buf.wait(); err == nil {
			err = buf.read(r.Body)
		}
	}
	over := buf.claim.release()
	switch {
	case over != nil:
		return over
	case len(buf.b) > bound:
		return tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded) && h.calls.Closed():
		return ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errTooSlow
	case err != io.EOF:
		return errBadJSON.saying("the request's body ended early").because(err)
	}
	// At the end of the body, net/http has lifted the deadline.
	r.Body = http.NoBody // an error that follows need not close the connection
	return f(buf.b)
}
