package admin

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/channels-go/channels"
)

const (
	scalerFresh   = time.Second      // how long what the Scaler said is good for
	scalerTimeout = 5 * time.Second  // for Scaler.Replicas
	scaleTimeout  = 10 * time.Second // for Scaler.Scale
)

// scaling remembers what the Scaler said last, since that may take long and every
// viewer wants to know it each second.
type scaling struct {
	scaler Scaler

	mu            sync.Mutex // guards the fields below
	asking        bool
	orders        int // how often somebody has scaled
	at            time.Time
	ready, wanted int
	err           error
	missing       missing
}

// scalingInfo is what the page needs for its buttons.
type scalingInfo struct {
	Known  bool   `json:"known"` // Ready and Wanted are
	Ready  int    `json:"ready"`
	Wanted int    `json:"wanted"`
	Min    int    `json:"min"`
	Max    int    `json:"max"`
	Late   bool   `json:"late"`  // fewer than wanted have been ready for long
	Error  string `json:"error"` // why they are not known, or ""
	Hint   string `json:"hint"`  // from the measured load, or ""
}

// scalingInfo never waits: it has what the Scaler said last, and asks it again beside.
func (a *Admin) scalingInfo(v *view) *scalingInfo {
	s := &a.scaling
	if s.scaler == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asking && time.Since(s.at) > scalerFresh {
		s.asking = a.tasks.run("Scaler.Replicas", a.askScaler) // false after Close
	}
	i := &scalingInfo{Known: !s.at.IsZero() && s.err == nil, Ready: s.ready, Wanted: s.wanted, Min: a.opts.ScaleMin, Max: a.opts.ScaleMax, Late: s.missing.late(time.Now())}
	if i.Known && i.Ready == i.Wanted { // the load of those that are there says little while others come or go
		i.Hint = hint(v.loads(), a.opts.ScaleMin, a.opts.ScaleMax)
	}
	if s.err != nil {
		i.Error = s.err.Error()
	}
	return i
}

// wants is how many replicas should run, or 0 if that is not known.
func (s *scaling) wants() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() || s.err != nil {
		return 0
	}
	return s.wanted
}

// askScaler ends by itself, or with Close.
func (a *Admin) askScaler() {
	ctx, cancel := context.WithTimeout(a.ctx, scalerTimeout)
	defer cancel()
	s := &a.scaling
	s.mu.Lock()
	orders := s.orders
	s.mu.Unlock()
	var ready, wanted int
	err := a.guard("Scaler.Replicas", func() (err error) {
		ready, wanted, err = s.scaler.Replicas(ctx)
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking = false
	if s.orders != orders {
		return // the answer may be older than the order
	}
	s.at, s.err = time.Now(), err
	if err == nil {
		s.ready, s.wanted = ready, wanted
		s.missing.answered(s.at, ready, wanted)
	}
}

// ordered makes the next look ask the Scaler again, after somebody has tried to scale.
func (s *scaling) ordered(n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = time.Time{}
	s.orders++
	if err == nil {
		s.missing.ordered(time.Now(), n)
	}
}

// guard calls the app's code. It turns a panic into an error, and logs what it was: it
// may hold a secret, and operators see the error.
func (a *Admin) guard(name string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			a.opts.Logger.Error("admin: panic in "+name, "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic in %s; the log of this replica says more", name)
		}
	}()
	return f()
}

// loads are those of the replicas that serve and will go on to.
func (v *view) loads() []load {
	var all []load
	for _, r := range v.replicas {
		if r.Status != channels.ReplicaRed && !r.silent && !r.Draining {
			all = append(all, load{r.ID, r.cpu, float64(r.Processors), r.Connections, r.MaxConnections})
		}
	}
	return all
}
