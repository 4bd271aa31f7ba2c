package admin

import (
	"context"
	"net/http"
)

// serveScale is POST /api/scale {"replicas"}.
func (a *Admin) serveScale(w http.ResponseWriter, r *http.Request, who operator) (any, error) {
	var m struct {
		Replicas int `json:"replicas"`
	}
	if err := readJSON(w, r, &m); err != nil {
		return nil, err
	}
	s := &a.scaling
	switch {
	case s.scaler == nil:
		return nil, refused("no_scaler", http.StatusNotFound, "this page cannot scale: Options.Scaler is not set")
	case m.Replicas < a.opts.ScaleMin || m.Replicas > a.opts.ScaleMax:
		return nil, badRequest("replicas is %d; it must be %d to %d", m.Replicas, a.opts.ScaleMin, a.opts.ScaleMax)
	}
	ctx, cancel := context.WithTimeout(r.Context(), scaleTimeout)
	defer cancel()
	s.mu.Lock()
	before := s.wanted
	s.mu.Unlock()
	err := a.guard("Scaler.Scale", func() error { return s.scaler.Scale(ctx, m.Replicas) })
	a.audit(who, "scaled", err, "from", before, "to", m.Replicas)
	s.ordered(m.Replicas, err)
	if err != nil {
		return nil, refused("scaler_failed", http.StatusBadGateway, err.Error())
	}
	return struct {
		Wanted int `json:"wanted"`
	}{m.Replicas}, nil
}
