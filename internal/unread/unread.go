// Package unread answers requests whose body nobody reads.
package unread

import (
	"net/http"
	"time"
)

// Linger is how long a client may go on sending a body that nobody reads, until
// the connection is closed. To close it at once could take the answer from a
// client that has not read it yet.
const Linger = time.Second

// Leave has the answer sent at once, and the connection closed, where the
// request has a body that nobody reads: net/http would wait for all of it,
// before the answer and behind it. Over HTTP/2 it does not.
func Leave(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody || r.ProtoMajor != 1 {
		return
	}
	w.Header().Set("Connection", "close")
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(Linger))
}
