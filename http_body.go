package channels

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// body reads a request's body, which may be of any content type (curl -d
// sends a form's): at most so many bytes, in the time that they have, and
// within what the hub holds for all. Who asks for it has asked Authorize.
func (h *Hub) body(w http.ResponseWriter, r *http.Request, bound int, f func(b []byte) error) error {
	for _, v := range r.Header["Content-Encoding"] {
		for coding := range strings.SplitSeq(v, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				w.Header().Set("Accept-Encoding", "identity") // RFC 9110 section 12.5.3
				return errBadEncoding.saying("the Content-Encoding is %.40q; compressed bodies are not taken; send the body as it is", coding)
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
	// The server's own ReadTimeout knows nothing of how much may come. Where a
	// middleware hides the deadlines, that one remains.
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
	case errors.Is(err, os.ErrDeadlineExceeded) && h.calls.closed():
		return ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errTooSlow
	case err != io.EOF:
		return errBadJSON.saying("the request's body ended early").because(err)
	}
	// With the end of the body, net/http has lifted the deadline.
	r.Body = http.NoBody // so that an error that follows does not close the connection
	return f(buf.b)
}
