package channels

import (
	"errors"
	"net/http"
	"net/url"
)

// serveHealth is GET /healthz: the process answers.
func (h *Hub) serveHealth(w http.ResponseWriter, r *http.Request, _ string, _ url.Values) error {
	return h.writeJSON(w, map[string]string{"status": "ok"})
}

// serveReady is GET /readyz: it says whether a load balancer should send new
// clients here. If the Store fails for all replicas, each stays ready: clients are no
// better off elsewhere, and channels without history do not need the Store. A replica
// that hears no other one does not: the fault may be its own. If all replicas are cut
// off from each other, each stays ready, since it serves its own clients.
func (h *Hub) serveReady(w http.ResponseWriter, r *http.Request, _ string, _ url.Values) error {
	others, served := h.others.company()
	switch {
	case h.calls.Closed():
		return ErrClosed
	case h.draining.Load():
		return ErrDraining
	// With others around it waits until it is red: by then they know whether the
	// Store fails them too.
	case h.storeBad.Load() && others == 0:
		return ErrStoreUnavailable
	case !h.reported.Load(): // in the first second, it is not known yet
		if err := h.flush(r.Context(), true); err != nil {
			return err
		}
		h.reported.Store(true)
	}
	_, err := h.verdict()
	switch {
	case errors.Is(err, ErrStoreUnavailable) && others > 0 && served == 0:
	case errors.Is(err, ErrMeshUnavailable) && h.vitals.isCutOff() && !h.others.linkedElsewhere():
	case err != nil:
		return err
	}
	return h.writeJSON(w, map[string]string{"status": "ok"})
}
