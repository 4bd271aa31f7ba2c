package channels

import (
	"encoding/json"
	"net/http"
	"time"
)

// writeJSON answers; net/http leaves the body out for HEAD.
func (h *Hub) writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	status, b := marshal(status, v)
	if len(b) > longAnswer {
		// It waits for a receiver that may be slow, like what is queued for others.
		if h.queued.sum() >= int64(h.opts.MaxQueuedBytes) {
			h.refuse(w, r, errOverloaded)
			return
		}
		// Who reads many histories slowly shuts others out of histories only, and
		// not out of the hub.
		n := h.answering.Add(int64(len(b)))
		defer h.answering.Add(-int64(len(b)))
		if n > int64(h.opts.MaxQueuedBytes/2) && n > int64(len(b)) {
			h.refuse(w, r, errOverloaded)
			return
		}
		waiting := h.queued.counter(h.spread.Add(1))
		waiting.Add(int64(len(b)))
		defer waiting.Add(-int64(len(b)))
	}
	h.sendJSON(w, status, b)
}

func (h *Hub) sendJSON(w http.ResponseWriter, status int, b []byte) {
	sendJSON(w, status, b, h.opts.WriteTimeout)
}

// longAnswer is from where an answer counts for Options.MaxQueuedBytes.
const longAnswer = 64 << 10

// marshal returns JSON and a line's end.
func marshal(status int, v any) (int, []byte) {
	b, err := json.Marshal(v)
	if err != nil { // Identity.Info that is no JSON, for one
		status = http.StatusInternalServerError
		b, _ = json.Marshal(failure{"fail", errorBody{ErrInternal.Code, ErrInternal.Message}})
	}
	return status, append(b, '\n')
}

// The headers of every answer; the slices are shared, and full.
var (
	typeJSON = []string{"application/json; charset=utf-8"}
	noStore  = []string{"no-store"}
	noSniff  = []string{"nosniff"}
)

const (
	// answerPiece is what is written at once.
	answerPiece = 16 << 10
	// A client is slow but steady if it takes so much in a second. The system
	// wakes a writer only when a third of the socket's buffer is free, which holds
	// no more than what was written: for so long it looks as if nothing is taken.
	steadyBytes = 64 << 10
	// refusalTimeout is what a client has to take a refusal.
	refusalTimeout = 10 * time.Second
)

// sendJSON answers. The client may be slow, but has to take each piece within
// the timeout and what the system needs to tell of it.
func sendJSON(w http.ResponseWriter, status int, b []byte, timeout time.Duration) {
	h := w.Header()
	h["Content-Type"], h["Cache-Control"], h["X-Content-Type-Options"] = typeJSON, noStore, noSniff
	boundAnswer(w, timeout)
	w.WriteHeader(status)
	for sent := 0; ; {
		n, err := w.Write(b[sent:min(sent+answerPiece, len(b))])
		if sent += n; err != nil || sent == len(b) {
			return
		}
		boundAnswer(w, timeout+time.Duration(sent/3)*time.Second/steadyBytes)
	}
}

// boundAnswer is how long the client may take nothing, from now on. Where a
// middleware hides the deadlines, the server's own remains.
func boundAnswer(w http.ResponseWriter, timeout time.Duration) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout))
}
