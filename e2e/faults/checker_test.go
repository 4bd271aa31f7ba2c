//go:build linux

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/hubtest"
)

// kept is the name of a channel that keeps history.
const kept = "keep"

// checked is the channel kept. Publishers publish on it through all replicas,
// and checkers require each message exactly once and in order.
type checked struct {
	t        *testing.T
	replicas []*replica
	epoch    string // of the first message; it changes if Redis starts anew
	http     *http.Client
	ctx      context.Context // for the checkers
	stop     func()
	quiet    context.Context // for the publishers
	quit     func()
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
func check(t *testing.T, all []*replica, n, publishers int, pause time.Duration) *checked {
	t.Helper()
	c := &checked{t: t, replicas: all, acked: map[uint64]string{},
		http: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: publishers}}}
	c.ctx, c.stop = context.WithCancel(t.Context())
	c.quiet, c.quit = context.WithCancel(t.Context())
	t.Cleanup(c.end)
	a, err := post(patient, all[0], kept, `"first"`, "first")
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
	c.quit()
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

// post publishes a message with a body in JSON, and with a key unless that is
// empty.
func post(client *http.Client, r *replica, channel, body, key string) (a answer, err error) {
	req, err := http.NewRequest("POST", "http://"+r.addr+"/v1/channel/"+channel+"/publish", strings.NewReader(`{"header":"m","body":`+body+`}`))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := client.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
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
		for tried := time.Now(); ; {
			select {
			case <-c.quiet.Done():
				return
			case <-time.After(pause):
			}
			at++
			a, err := post(c.http, c.replicas[at%len(c.replicas)], kept, `"`+id+`"`, id)
			if err == nil {
				if err := hubtest.RepeatedInTime(tried); err != nil {
					c.fail("%s: %w", id, err)
				}
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
	eventually(c.t, fmt.Sprintf("%d more messages are acknowledged", n), func() bool {
		c.noFailure()
		return c.acks.Load() >= want
	})
}

func (c *checked) noFailure() {
	c.t.Helper()
	if err := c.failed.Load(); err != nil {
		require.NoError(c.t, *err)
	}
}

// settle waits until all checkers have what is the newest message now, as long
// as any of them makes progress: on a busy machine, 300 of them take their time.
func (c *checked) settle() {
	c.t.Helper()
	top, before := c.newest.Load(), uint64(0)
	for quiet := time.Now(); ; time.Sleep(20 * time.Millisecond) { // between two looks
		c.noFailure()
		var sum uint64
		var behind []string
		for i, k := range c.checkers {
			at := k.top.Load()
			if sum += min(at, top); at < top {
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
	c.quit()
	c.sending.Wait()
	c.settle()
	c.end()
	c.noFailure()
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
	c.t.Logf("%d messages acknowledged, %d checkers, %d connections", len(c.acked), len(c.checkers), connects)
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
	ws, err := dial(dialing, r, fmt.Sprintf("%s/?since=%s:%d", kept, k.epoch, len(k.got)))
	if err != nil {
		return
	}
	defer ws.CloseNow()
	k.connects.Add(1)
	k.begins("reads from " + r.name)
	for {
		m, err := receive(k.of.ctx, ws)
		if err != nil {
			return
		}
		switch m.Header {
		case "m":
			if m.Offset != uint64(len(k.got))+1 {
				k.of.fail("%s sent %+v after offset %d in epoch %s", r.name, m, len(k.got), k.epoch)
				return
			}
			k.epoch = m.Epoch
			k.got = append(k.got, text(m))
			k.top.Store(m.Offset)
			k.begins("waits for more from " + r.name)
		case "reconnect": // the close follows
		case "error": // for example if the Store is down while it joins
			return
		default:
			k.of.fail("%s sent %+v", r.name, m)
			return
		}
	}
}
