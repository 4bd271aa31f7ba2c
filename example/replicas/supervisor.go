package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/channels-go/channels/example/internal/web"
)

// supervisor starts the replicas and knows their state. All methods may be
// called concurrently.
type supervisor struct {
	program string
	all     []*replica
	checks  sync.WaitGroup
	cancel  context.CancelFunc // ends the checks

	mu      sync.Mutex // guards the fields below, and those of the replicas
	stopped bool
}

// replica is a child process, and its successors.
type replica struct {
	config replicaConfig

	process *os.Process    // nil while the replica is dead
	at      addresses      // of the process; empty until it has written them
	input   io.WriteCloser // of the process; closing it ends the process
	gone    chan struct{}  // closed when the process has ended
	ready   bool           // the result of the last check
	conns   int            // the balancer's open connections to it
}

// newSupervisor prepares n replicas.
func newSupervisor(n int, redis string, hosts []string) (*supervisor, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &supervisor{program: program}
	for i := range n {
		s.all = append(s.all, &replica{config: replicaConfig{Node: fmt.Sprintf("replica-%d", i+1), Redis: redis, Hosts: hosts}})
	}
	return s, nil
}

// start starts all replicas and begins to check whether they are ready. stop
// ends both.
func (s *supervisor) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	for _, r := range s.all {
		if err := s.launch(r); err != nil {
			slog.Error("a replica could not be started", "replica", r.config.Node, "err", err)
		}
		s.checks.Go(func() { s.watch(ctx, r) }) // ends with ctx
	}
}

// launch starts a replica if it is dead.
func (s *supervisor) launch(r *replica) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.process != nil || s.stopped {
		return nil
	}
	line, err := json.Marshal(r.config)
	if err != nil {
		return err
	}
	cmd := exec.Command(s.program, replicaCommand)
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	input, err := cmd.StdinPipe() // the system also closes it when this process dies, so no child is left
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.process, r.input, r.gone = cmd.Process, input, make(chan struct{})
	go func() { // ends with the process; stop waits for gone
		var at addresses
		if out := json.NewDecoder(output); out.Decode(&at) == nil { // otherwise the process ends
			s.listens(r, at)
			io.Copy(os.Stderr, output)
		}
		cmd.Wait() // after kill its status does not matter; otherwise it has logged the reason
		s.mu.Lock()
		defer s.mu.Unlock()
		r.process, r.ready, r.at = nil, false, addresses{}
		close(r.gone)
	}()
	_, err = input.Write(append(line, '\n')) // fits into a pipe, so it does not block
	return err
}

// listens records where a replica listens, and tells all replicas where the
// others are. Each process has new addresses, chosen by the system: a fixed one
// might be taken by another program by then.
func (s *supervisor) listens(r *replica, at addresses) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.at = at
	peers := map[string]string{}
	for _, r := range s.all {
		if r.at.Mesh != "" {
			peers[r.config.Node] = r.at.Mesh
		}
	}
	line, _ := json.Marshal(peers) // strings can always be encoded
	for _, r := range s.all {
		if r.process != nil {
			r.input.Write(append(line, '\n')) // the process may have died; a pipe has room for many lines
		}
	}
}

// kill ends a replica with SIGKILL, like a crash.
func (s *supervisor) kill(r *replica) error {
	s.mu.Lock()
	process, gone := r.process, r.gone
	s.mu.Unlock()
	if process == nil {
		return nil
	}
	err := process.Kill()
	<-gone
	return err
}

// stop lets all replicas drain, and returns when they have ended.
func (s *supervisor) stop() {
	s.cancel()
	s.checks.Wait()
	s.mu.Lock()
	s.stopped = true
	var left []*replica
	for _, r := range s.all {
		if r.process != nil {
			r.input.Close()
			left = append(left, r)
		}
	}
	s.mu.Unlock()
	late := time.After(web.DrainDelay + 10*time.Second)
	for _, r := range left {
		select {
		case <-r.gone:
		case <-late:
			late = time.After(0) // for the others too
			s.kill(r)
		}
	}
}

// watch checks every half second whether a replica is ready, until ctx ends.
func (s *supervisor) watch(ctx context.Context, r *replica) {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	ticks := time.NewTicker(500 * time.Millisecond)
	defer ticks.Stop()
	for {
		s.mu.Lock()
		address := r.at.HTTP
		s.mu.Unlock()
		ready := false
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
		if err == nil {
			if res, err := client.Do(req); err == nil {
				res.Body.Close()
				ready = res.StatusCode == http.StatusOK
			}
		}
		s.mu.Lock()
		r.ready = ready && r.at.HTTP == address && address != ""
		s.mu.Unlock()
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

// choose returns the replica for the next connection: a ready one if there is
// one, and among equals the one with the fewest connections. It skips those
// that were tried, and returns nil if none is left.
func (s *supervisor) choose(tried []*replica) (best *replica, address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		if r.at.HTTP == "" || slices.Contains(tried, r) {
			continue
		}
		if best == nil || r.ready && !best.ready || r.ready == best.ready && r.conns < best.conns {
			best = r
		}
	}
	if best == nil {
		return nil, ""
	}
	best.conns++ // release decrements it
	return best, best.at.HTTP
}

// release records that a connection to a replica has ended.
func (s *supervisor) release(r *replica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.conns--
}

// state is a replica's state, as the page shows it.
type state struct {
	Node  string `json:"node"`
	PID   int    `json:"pid"` // 0 while it is dead
	Ready bool   `json:"ready"`
}

func (s *supervisor) states() []state {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]state, 0, len(s.all))
	for _, r := range s.all {
		one := state{Node: r.config.Node, Ready: r.ready}
		if r.process != nil {
			one.PID = r.process.Pid
		}
		all = append(all, one)
	}
	return all
}
