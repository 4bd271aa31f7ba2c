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
// called concurrently. scaling.go has those that change their number.
type supervisor struct {
	program string
	config  replicaConfig      // of all replicas; Node is empty
	ctx     context.Context    // of the checks
	cancel  context.CancelFunc // ends them
	tasks   sync.WaitGroup     // the checks, and what waits for replicas that leave

	mu      sync.Mutex // guards the fields below, and those of the replicas
	all     []*replica // sorted by number
	named   int        // the highest number so far
	wanted  int        // how many are to run
	stopped bool
}

// replica is a child process, and its successors.
type replica struct {
	number int
	config replicaConfig
	forget context.CancelFunc // ends its checks

	process *os.Process    // nil while the replica is dead
	at      addresses      // of the process; empty until it has written them
	input   io.WriteCloser // of the process; closing it lets the process drain and end
	gone    chan struct{}  // closed when the process has ended
	ready   bool           // the result of the last check
	leaves  bool           // it drains, and does not come back
	conns   int            // the balancer's open connections to it
}

// maxReplicas is how many may run at once: a laptop has room for them.
const maxReplicas = 9

// newSupervisor prepares replicas with this configuration.
func newSupervisor(config replicaConfig) (*supervisor, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &supervisor{program: program, config: config}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// launch starts a replica if it is dead. One that leaves, or has left, is not started
// again: nothing would end it.
func (s *supervisor) launch(r *replica) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	if r.leaves || !slices.Contains(s.all, r) {
		return fmt.Errorf("%s is not to run any more", r.config.Node)
	}
	return s.launchLocked(r)
}

func (s *supervisor) launchLocked(r *replica) error {
	if r.process != nil {
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
		if err := cmd.Wait(); err != nil { // whoever reads the log wants to know what killed it
			slog.Warn(fmt.Sprintf("%s (pid %d) has ended: %v", r.config.Node, cmd.Process.Pid, err))
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		r.process, r.ready, r.at = nil, false, addresses{}
		close(r.gone)
	}()
	_, err = input.Write(append(line, '\n')) // fits into a pipe, so it does not block
	return err
}

// listens records where a replica listens. Each process has new addresses,
// chosen by the system: a fixed one might be taken by another program by then.
func (s *supervisor) listens(r *replica, at addresses) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.at = at
	s.introduceLocked()
}

// introduceLocked tells all replicas where the others are.
func (s *supervisor) introduceLocked() {
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
	s.mu.Lock()
	s.stopped = true
	s.cancel()
	var left []*replica
	for _, r := range s.all {
		if r.process != nil {
			r.input.Close()
			left = append(left, r)
		}
	}
	s.mu.Unlock()
	late := time.After(drainLimit)
	for _, r := range left {
		s.await(r, late)
	}
	s.tasks.Wait()
}

// drainLimit is how long a replica may drain before it is killed. It is more
// than the replica itself allows.
const drainLimit = web.DrainDelay + 10*time.Second

// await waits until a replica has ended, and kills it if it is late.
func (s *supervisor) await(r *replica, late <-chan time.Time) {
	s.mu.Lock()
	process, gone := r.process, r.gone
	s.mu.Unlock()
	if process == nil {
		return
	}
	select {
	case <-gone:
	case <-late:
		if err := s.kill(r); err != nil {
			slog.Error("a replica could not be killed", "replica", r.config.Node, "err", err)
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
		r.ready = ready && r.at.HTTP == address && address != "" && !r.leaves
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
	return s.find(tried, func(a, b *replica) bool { return a.conns < b.conns })
}

// first is like choose, but returns the oldest replica as long as it is ready.
// The operators' page draws what one replica has seen.
func (s *supervisor) first(tried []*replica) (best *replica, address string) {
	return s.find(tried, func(_, _ *replica) bool { return false })
}

func (s *supervisor) find(tried []*replica, better func(a, b *replica) bool) (best *replica, address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		if r.at.HTTP == "" || slices.Contains(tried, r) {
			continue
		}
		if best == nil || r.ready && !best.ready || r.ready == best.ready && better(r, best) {
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

// number returns the replica with a number.
func (s *supervisor) number(n int) (*replica, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		if r.number == n {
			return r, nil
		}
	}
	return nil, fmt.Errorf("there is no replica-%d", n)
}

// state is a replica's state, as the page shows it.
type state struct {
	Node   string `json:"node"`
	Number int    `json:"number"`
	PID    int    `json:"pid"` // 0 while it is dead
	Ready  bool   `json:"ready"`
	Leaves bool   `json:"leaves"`
}

func (s *supervisor) states() []state {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]state, 0, len(s.all))
	for _, r := range s.all {
		one := state{Node: r.config.Node, Number: r.number, Ready: r.ready, Leaves: r.leaves}
		if r.process != nil {
			one.PID = r.process.Pid
		}
		all = append(all, one)
	}
	return all
}
