package channels

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// writeJSON answers; net/http leaves the body out for HEAD.
func (h *Hub) writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	h.writeLong(w, r, status, v, 0)
}

// writeLong is writeJSON for what has about so many bytes, and may have many. It
// is refused before it is encoded where it would not be sent, or many requests
// at once would each take their memory first.
func (h *Hub) writeLong(w http.ResponseWriter, r *http.Request, status int, v any, size int) {
	held := int64(0)
	// Who reads many histories slowly shuts others out of histories only, and
	// not out of the hub.
	hold := func(n int64) bool {
		sum := h.answering.Add(n - held)
		held = n
		return h.queued.sum() < int64(h.opts.MaxQueuedBytes) && (sum <= int64(h.opts.MaxQueuedBytes/2) || sum == n)
	}
	defer func() { hold(0) }()
	refuse := func() {
		hold(0)
		h.refuse(w, r, errOverloaded)
	}
	if size > longAnswer && !hold(encodingFactor*int64(size)) {
		refuse()
		return
	}
	status, b := marshal(status, v)
	if len(b) > longAnswer {
		// It waits for a receiver that may be slow, like what is queued for others.
		if !hold(int64(len(b))) {
			refuse()
			return
		}
		waiting := h.queued.counter(h.spread.Add(1))
		waiting.Add(int64(len(b)))
		defer waiting.Add(-int64(len(b)))
		h.sendLong(w, status, b)
		return
	}
	h.sendJSON(w, status, b)
}

// sendLong is sendJSON for what a slow client may take minutes for: once the hub
// has ended, it has closeTimeout for the rest, or http.Server.Shutdown would wait
// for it as long as it may.
func (h *Hub) sendLong(w http.ResponseWriter, status int, b []byte) {
	var mu sync.Mutex // guards the fields below
	ended, returned := false, false
	stop := context.AfterFunc(h.ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if ended = true; !returned { // else the connection may be another request's
			boundAnswer(w, closeTimeout)
		}
	})
	defer func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		returned = true
	}()
	sendJSON(w, status, b, h.opts.WriteTimeout, func(w http.ResponseWriter, timeout time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			boundAnswer(w, timeout)
		}
	})
}

// encodingFactor is how many times its length JSON takes while it is encoded, as the
// encoder's buffer grows.
const encodingFactor = 3

func (h *Hub) sendJSON(w http.ResponseWriter, status int, b []byte) {
	sendJSON(w, status, b, h.opts.WriteTimeout, boundAnswer)
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
// the timeout and what the system needs to tell of it. bound is boundAnswer, or
// knows better.
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

// boundAnswer is how long the client may take nothing, from now on. Where a
// middleware hides the deadlines, the server's own remains.
func boundAnswer(w http.ResponseWriter, timeout time.Duration) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout))
}
