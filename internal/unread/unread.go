// Package unread answers requests without reading their body.
package unread

import (
	"net/http"
	"time"
)

// Linger is how long a client may go on sending a body that is not read, before
// the connection is closed. Closing it at once could discard the answer before
// the client has read it.
const Linger = time.Second

// Leave sends the answer at once and closes the connection, if the request has
// a body that is not read: net/http would read all of it, before the answer or
// after it. Over HTTP/2 it does not, so Leave does nothing.
func Leave(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody || r.ProtoMajor != 1 {
		return
	}
	w.Header().Set("Connection", "close")
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(Linger))
}
