//go:build linux

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

// A checked channel keeps history. Publishers publish on it through all
// replicas, and checkers require each message exactly once and in order.
type checked struct {
	t        *testing.T
	name     string
	replicas []*replica
	epoch    string // of the first message; it changes if Redis starts anew
	http     *http.Client
	ctx      context.Context // for the checkers
	stop     func()
	quit     chan struct{} // ends the publishers
	running  sync.WaitGroup
	sending  sync.WaitGroup
	checkers []*checker
	failed   atomic.Pointer[error] // the first failure

	mu     sync.Mutex // guards the field below
	acked  map[uint64]string
	newest atomic.Uint64 // the newest offset in acked
	acks   atomic.Int64
}

// check opens the channel with its first message, n checkers that start before
// it, and the given number of publishers.
func check(t *testing.T, name string, all []*replica, n, publishers int, pause time.Duration) *checked {
	t.Helper()
	c := &checked{t: t, name: name, replicas: all, acked: map[uint64]string{}, quit: make(chan struct{}),
		http: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: publishers}}}
	c.ctx, c.stop = context.WithCancel(t.Context())
	t.Cleanup(c.end)
	first := &checked{name: name, http: patient}
	a, err := first.post(all[0], "first")
	require.NoError(t, err)
	require.Equal(t, uint64(1), a.Offset)
	c.epoch = a.Epoch
	c.ack(a, "first")
	for i := range n {
		k := &checker{of: c, first: i, epoch: c.epoch}
		c.checkers = append(c.checkers, k)
		c.running.Go(k.run)
	}
	for i := range publishers {
		c.sending.Go(func() { c.publish(i, pause) })
	}
	return c
}

func (c *checked) end() {
	select {
	case <-c.quit:
	default:
		close(c.quit)
	}
	c.sending.Wait()
	c.stop()
	c.running.Wait()
	c.http.CloseIdleConnections()
}

func (c *checked) fail(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	c.failed.CompareAndSwap(nil, &err)
}

type answer struct {
	Offset uint64
	Epoch  string
	Error  struct{ Code string }
}

// errRefused is an answer with another status than 200.
type errRefused struct {
	status int
	code   string
}

func (e errRefused) Error() string { return fmt.Sprintf("%d %s", e.status, e.code) }

func (c *checked) post(r *replica, id string) (a answer, err error) {
	req, err := http.NewRequest("POST", "http://"+r.addr+"/v1/channel/"+c.name+"/publish", strings.NewReader(`{"header":"m","body":"`+id+`"}`))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", id)
	resp, err := c.http.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, err
	}
	if resp.StatusCode != http.StatusOK {
		return a, errRefused{resp.StatusCode, a.Error.Code}
	}
	return a, nil
}

func (c *checked) ack(a answer, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if other, ok := c.acked[a.Offset]; ok {
		c.fail("%s has offset %d, which %q already has", id, a.Offset, other)
	}
	c.acked[a.Offset] = id
	c.newest.Store(max(a.Offset, c.newest.Load()))
	c.acks.Add(1)
}

// publish publishes one message after the other. It repeats each one with its
// key, on another replica, until it is acknowledged.
func (c *checked) publish(p int, pause time.Duration) {
	at := p
	for i := 0; ; i++ {
		id := fmt.Sprintf("%d-%d", p, i)
		for {
			select {
			case <-c.quit:
				return
			case <-time.After(pause):
			}
			at++
			a, err := c.post(c.replicas[at%len(c.replicas)], id)
			if err == nil {
				c.ack(a, id)
				break
			}
			if e, ok := err.(errRefused); ok && e.status < 500 {
				c.fail("%s was refused: %w", id, e)
				return
			}
		}
	}
}

// more waits until n more messages are acknowledged.
func (c *checked) more(n int64) {
	c.t.Helper()
	want := c.acks.Load() + n
	redistest.Eventually(c.t, fmt.Sprintf("%d more messages are acknowledged", n), func() bool {
		if err := c.failed.Load(); err != nil {
			require.NoError(c.t, *err)
		}
		return c.acks.Load() >= want
	})
}

// settle waits until all checkers have the newest message, as long as any of
// them makes progress: on a busy machine, 300 of them take their time.
func (c *checked) settle(top uint64) {
	c.t.Helper()
	var before uint64
	for quiet := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if err := c.failed.Load(); err != nil {
			require.NoError(c.t, *err)
		}
		var sum uint64
		var behind []string
		for i, k := range c.checkers {
			at := k.top.Load()
			if sum += at; at < top {
				behind = append(behind, fmt.Sprintf("checker %d has %d of %d; %s", i, at, top, k.does()))
			}
		}
		if len(behind) == 0 {
			return
		}
		if sum > before {
			before, quiet = sum, time.Now()
		}
		if time.Since(quiet) > patience {
			require.FailNow(c.t, "messages are missing, and none has arrived for "+patience.String(), strings.Join(behind, "\n"))
		}
	}
}

// verify ends the publishers and compares what each checker has received.
func (c *checked) verify() {
	c.t.Helper()
	close(c.quit)
	c.sending.Wait()
	c.mu.Lock()
	top := c.newest.Load()
	c.mu.Unlock()
	c.settle(top)
	c.end()
	if err := c.failed.Load(); err != nil {
		require.NoError(c.t, *err)
	}
	again, connects := map[string]uint64{}, int64(0)
	for i, id := range c.checkers[0].got {
		if at, ok := again[id]; ok {
			require.FailNow(c.t, "stored twice", "%s is at %d and at %d in spite of its key", id, at, i+1)
		}
		again[id] = uint64(i + 1)
	}
	for i, k := range c.checkers {
		connects += k.connects.Load()
		for offset, id := range c.acked {
			if k.got[offset-1] != id {
				require.FailNow(c.t, "not what was acknowledged", "checker %d has %s at offset %d, where %s was acknowledged", i, k.got[offset-1], offset, id)
			}
		}
	}
	c.t.Logf("%s: %d messages acknowledged, %d checkers, %d connections", c.name, len(c.acked), len(c.checkers), connects)
}

// A checker is a client that reconnects, to another replica, if its connection
// breaks.
type checker struct {
	of       *checked
	first    int      // the replica that it starts with
	epoch    string   // of its last message; used only by run
	got      []string // by offset minus 1; used only by run
	top      atomic.Uint64
	connects atomic.Int64
	doing    atomic.Pointer[doing]
}

// doing is what a checker is doing, and since when.
type doing struct {
	what  string
	since time.Time
}

func (k *checker) begins(what string) { k.doing.Store(&doing{what, time.Now()}) }

func (k *checker) does() string {
	d := k.doing.Load()
	return fmt.Sprintf("%s for %s, after %d connections", d.what, time.Since(d.since).Round(time.Millisecond), k.connects.Load())
}

func (k *checker) run() {
	for at := k.first; k.of.ctx.Err() == nil; at++ {
		k.read(k.of.replicas[at%len(k.of.replicas)])
		select {
		case <-k.of.ctx.Done():
		case <-time.After(rand.N(300 * time.Millisecond)): // as clients do
		}
	}
}

func (k *checker) read(r *replica) {
	k.begins("connects to " + r.name)
	dialing, cancel := context.WithTimeout(k.of.ctx, 2*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(dialing, fmt.Sprintf("ws://%s/channel/%s/?since=%s:%d", r.addr, k.of.name, k.epoch, len(k.got)),
		&websocket.DialOptions{HTTPClient: plain})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	k.connects.Add(1)
	k.begins("reads from " + r.name)
	for {
		_, b, err := ws.Read(k.of.ctx)
		if err != nil {
			return
		}
		var m struct {
			Header string
			Body   json.RawMessage
			Offset uint64
			Epoch  string
		}
		if err := json.Unmarshal(b, &m); err != nil {
			k.of.fail("not JSON: %s", b)
			return
		}
		switch m.Header {
		case "m":
			if m.Offset != uint64(len(k.got))+1 {
				k.of.fail("%s sent %s after offset %d in epoch %s", r.name, b, len(k.got), k.epoch)
				return
			}
			k.epoch = m.Epoch
			k.got = append(k.got, strings.Trim(string(m.Body), `"`))
			k.top.Store(m.Offset)
			k.begins("waits for more from " + r.name)
		case "reconnect": // the close follows
		case "error": // for example if the Store is down while it joins
			return
		default:
			k.of.fail("%s sent %s", r.name, b)
			return
		}
	}
}

var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
