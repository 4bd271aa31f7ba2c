package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

// witnesses are subscribers of a channel with history. They connect again when
// their replica goes, from where they were. Whatever happens to the replicas,
// each of them has to get each message, once and in order.
type witnesses struct {
	t       *testing.T
	s       *server
	channel string
	epoch   string
	end     context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex // guards the fields below
	published int64      // the offset of the last message that was acknowledged
	all       []*witness
}

// witness is one of them.
type witness struct {
	offsets []int64
	wrong   string // what it should never have got
	dials   int
}

// watch starts n witnesses, and a program that publishes. done ends them.
func watch(t *testing.T, s *server, channel string, n int) *witnesses {
	t.Helper()
	w := &witnesses{t: t, s: s, channel: channel}
	var ctx context.Context
	ctx, w.end = context.WithCancel(t.Context())
	require.NoError(t, w.publish(ctx, 0))
	for range n {
		one := &witness{}
		w.all = append(w.all, one)
		w.running.Go(func() { // ends with ctx
			for ctx.Err() == nil {
				w.follow(ctx, one)
				pause(ctx, 100*time.Millisecond)
			}
		})
	}
	w.running.Go(func() { // ends with ctx
		for i := 1; ctx.Err() == nil; i++ {
			for ctx.Err() == nil && w.publish(ctx, i) != nil { // a replica that has just ended
				pause(ctx, 50*time.Millisecond)
			}
			pause(ctx, 200*time.Millisecond) // the channel keeps 200 messages: 40 s
		}
	})
	t.Cleanup(func() {
		w.end()
		w.running.Wait()
	})
	return w
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// publish publishes a message once, however often it is called.
func (w *witnesses) publish(ctx context.Context, i int) error {
	r, err := http.NewRequestWithContext(ctx, "POST", w.s.home()+"v1/channel/"+w.channel+"/publish",
		strings.NewReader(fmt.Sprintf(`{"header":"say","body":{"text":"%d"}}`, i)))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", fmt.Sprint(w.channel, "-", i))
	res, err := alone.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var a struct {
		Epoch  string
		Offset int64
	}
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || json.Unmarshal(b, &a) != nil {
		return fmt.Errorf("%s: %s, %v", res.Status, b, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epoch, w.published = a.Epoch, max(w.published, a.Offset)
	return nil
}

// follow is one connection of a witness, until it ends.
func (w *witnesses) follow(ctx context.Context, one *witness) {
	w.mu.Lock()
	one.dials++
	url := fmt.Sprintf("%schannel/%s/?since=%s:%d", w.s.home(), w.channel, w.epoch, len(one.offsets))
	w.mu.Unlock()
	c, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		_, b, err := c.Read(ctx)
		if err != nil {
			return
		}
		var m struct {
			Header string
			Offset int64
		}
		err = json.Unmarshal(b, &m)
		w.mu.Lock()
		switch {
		case err != nil || m.Header == "reset":
			one.wrong += string(b)
		case m.Header == "say":
			one.offsets = append(one.offsets, m.Offset)
		}
		w.mu.Unlock()
	}
}

// done wants every witness to have got every message, once and in order, and
// some of them to have moved.
func (w *witnesses) done() {
	w.t.Helper()
	w.mu.Lock()
	last := w.published
	w.mu.Unlock()
	basetest.Eventually(w.t, "all have got the last message", func() bool {
		return !slices.ContainsFunc(w.seen(), func(one witness) bool { return one.wrong == "" && int64(len(one.offsets)) < last })
	})
	moved := 0
	for i, one := range w.seen() {
		require.Empty(w.t, one.wrong, "witness %d", i)
		for k, offset := range one.offsets {
			require.EqualValues(w.t, k+1, offset, "witness %d", i)
		}
		moved += one.dials - 1
	}
	require.Positive(w.t, moved, "no witness was on a replica that has ended")
}

// seen returns what the witnesses have seen by now.
func (w *witnesses) seen() (all []witness) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.all {
		all = append(all, *one)
	}
	return all
}
