package channels

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/channels-go/channels/internal/answer"
)

// writeJSON answers with JSON. net/http leaves the body out for HEAD. An error means
// that nothing was written.
func (h *Hub) writeJSON(w http.ResponseWriter, v any) error { return h.writeLong(w, v, 0) }

// writeLong is writeJSON for an answer that may be long; size is an estimate. If
// there is no memory for the answer, it is refused before it is encoded: many
// requests at once would each take theirs first.
func (h *Hub) writeLong(w http.ResponseWriter, v any, size int) error {
	held := int64(0)
	// Long answers may take half of MaxQueuedBytes. Clients that read many
	// histories slowly block other histories, but not new connections.
	hold := func(n int64) bool {
		sum := h.answering.Add(n - held)
		held = n
		return h.fan.Queued() < int64(h.opts.MaxQueuedBytes) && (sum <= int64(h.opts.MaxQueuedBytes/2) || sum == n)
	}
	defer func() { hold(0) }()
	if size > longAnswer && !hold(encodingFactor*int64(size)) {
		return errOverloaded
	}
	status, b := marshal(http.StatusOK, v)
	if len(b) > longAnswer {
		// It waits for a receiver that may be slow, like queued messages.
		if !hold(int64(len(b))) {
			return errOverloaded
		}
		waiting := h.fan.Counter()
		waiting.Add(int64(len(b)))
		defer waiting.Add(-int64(len(b)))
		h.sendLong(w, status, b)
		return nil
	}
	sendJSON(w, status, b, h.opts.WriteTimeout, boundAnswer)
	return nil
}

// sendLong is sendJSON for an answer that a slow client may read for minutes.
// When the hub ends, the client has closeTimeout for the rest, so that
// http.Server.Shutdown need not wait for it.
func (h *Hub) sendLong(w http.ResponseWriter, status int, b []byte) {
	bounded := make(chan struct{})
	stop := context.AfterFunc(h.ctx, func() {
		defer close(bounded)
		boundAnswer(w, closeTimeout)
	})
	defer func() {
		if !stop() {
			<-bounded // afterwards the connection may be another request's
		}
	}()
	sendJSON(w, status, b, h.opts.WriteTimeout, func(w http.ResponseWriter, timeout time.Duration) {
		if h.ctx.Err() != nil {
			return // it has its last deadline
		}
		boundAnswer(w, timeout)
		if h.ctx.Err() != nil { // since then
			boundAnswer(w, closeTimeout)
		}
	})
}

// encodingFactor is how much memory encoding takes, in lengths of the result: the
// encoder's buffer grows by copying.
const encodingFactor = 3

// longAnswer is the length from which an answer counts towards Options.MaxQueuedBytes.
const longAnswer = 64 << 10

// marshal returns v as JSON, with a line end.
func marshal(status int, v any) (int, []byte) {
	b, err := json.Marshal(v)
	if err != nil { // Identity.Info is not JSON, for example
		status = http.StatusInternalServerError
		b, _ = json.Marshal(answer.Refused(ErrInternal.Code, ErrInternal.Message))
	}
	return status, append(b, '\n')
}

// The headers of every answer. The slices are shared, and full: appending copies them.
var (
	typeJSON = []string{"application/json; charset=utf-8"}
	noStore  = []string{"no-store"}
	noSniff  = []string{"nosniff"}
)

const (
	// answerPiece is how much is written at once.
	answerPiece = 16 << 10
	// steadyBytes is how much a slow but steady client takes in a second. The
	// system wakes a writer only when a third of the socket's buffer is free, so
	// that for a while such a client seems to take nothing.
	steadyBytes = 64 << 10
	// refusalTimeout is how long a client has to read a refusal.
	refusalTimeout = 10 * time.Second
)

// sendJSON answers with JSON in b. The client may be slow, but has to take each
// piece within the timeout, plus what the system needs to notice. bound sets the
// deadline: boundAnswer, or a function around it.
func sendJSON(w http.ResponseWriter, status int, b []byte, timeout time.Duration, bound func(http.ResponseWriter, time.Duration)) {
	h := w.Header()
	h["Content-Type"], h["Cache-Control"], h["X-Content-Type-Options"] = typeJSON, noStore, noSniff
	bound(w, timeout)
	w.WriteHeader(status)
	for sent := 0; ; {
		n, err := w.Write(b[sent:min(sent+answerPiece, len(b))])
		if sent += n; err != nil || sent == len(b) {
			return
		}
		bound(w, timeout+time.Duration(sent/3)*time.Second/steadyBytes)
	}
}

// boundAnswer sets how long the client may take nothing, from now on. If a
// middleware hides the deadlines, the server's own remains.
func boundAnswer(w http.ResponseWriter, timeout time.Duration) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout))
}
