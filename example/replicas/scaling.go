package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// counts returns how many replicas are ready, and how many are to run.
func (s *supervisor) counts() (ready, wanted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		if r.ready {
			ready++
		}
	}
	return ready, s.wanted
}

// scale makes n the number of replicas that are to run. It starts new ones, or
// lets those with the fewest connections drain and end. It forgets replicas that
// have died: new ones, with new names, take their place.
func (s *supervisor) scale(n int, connections map[string]int) error {
	if n < 1 || n > maxReplicas {
		return fmt.Errorf("cannot scale to %d replicas; the demo runs 1 to %d", n, maxReplicas)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errors.New("the demo is ending, and starts nothing more")
	}
	s.wanted = n
	s.forgetLocked(func(r *replica) bool { return r.process == nil })
	var run []*replica
	for _, r := range s.all {
		if !r.leaves {
			run = append(run, r)
		}
	}
	var failed error
	for range n - len(run) {
		failed = errors.Join(failed, s.addLocked())
	}
	slices.SortFunc(run, func(a, b *replica) int {
		return cmp.Or(cmp.Compare(connections[a.config.Node], connections[b.config.Node]), cmp.Compare(b.number, a.number))
	})
	for _, r := range run[:max(0, len(run)-n)] {
		s.leaveLocked(r)
	}
	return failed
}

// addLocked starts one more replica.
func (s *supervisor) addLocked() error {
	s.named++
	r := &replica{number: s.named, config: s.config}
	r.config.Node = fmt.Sprintf("replica-%d", r.number)
	var ctx context.Context
	ctx, r.forget = context.WithCancel(s.ctx)
	s.all = append(s.all, r)
	s.tasks.Go(func() { s.watch(ctx, r) }) // ends with ctx
	if err := s.launchLocked(r); err != nil {
		slog.Error("a replica could not be started", "replica", r.config.Node, "err", err)
		return fmt.Errorf("%s could not be started: %w", r.config.Node, err)
	}
	return nil
}

// leaveLocked lets a replica drain and end. Then it is forgotten.
func (s *supervisor) leaveLocked(r *replica) {
	r.leaves, r.ready = true, false
	r.input.Close()
	s.tasks.Go(func() { // ends with the replica
		s.await(r, time.After(drainLimit))
		s.mu.Lock()
		defer s.mu.Unlock()
		s.forgetLocked(func(other *replica) bool { return other == r })
		s.introduceLocked()
	})
}

// forgetLocked ends the checks of some replicas and takes them off the list.
func (s *supervisor) forgetLocked(which func(*replica) bool) {
	s.all = slices.DeleteFunc(s.all, func(r *replica) bool {
		if which(r) {
			r.forget()
			return true
		}
		return false
	})
}
