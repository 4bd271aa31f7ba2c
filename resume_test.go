package channels_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

// A client resumes in a log that was begun after this replica looked for it.
func TestAResumeInALogThatThisReplicaHasNotSeen(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		live := r.subscribe(1, "c", nil)
		var at channels.Position
		r.drop(func() {
			for n := 1; n <= 8; n++ {
				if p := r.publish(0, "c", n).Position; n == 5 {
					at = p
				}
			}
		})
		late := r.subscribe(1, "c", &at)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, offsets(1, 8), live.story())
		require.Equal(t, offsets(6, 8), late.story())
	})
}

func TestAResumeBeforeTheAnswerOfAnAppend(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		live := r.subscribe(0, "c", nil)
		r.store.addLag.Store(int64(50 * time.Millisecond)) // the answers come later
		r.store.appended = true
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() { r.publish(0, "c", n) })
		}
		time.Sleep(10 * time.Millisecond)
		h, err := r.hubs[0].History(context.Background(), "c", channels.HistoryQuery{})
		require.NoError(t, err)
		require.Len(t, h.Messages, 8)
		late := r.subscribe(0, "c", &h.Messages[4].Position)
		wg.Wait()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, offsets(1, 8), live.story())
		require.Equal(t, offsets(6, 8), late.story())
	})
}

// A subscriber catches up slowly, its queue holds two of the messages, and it is not
// closed: the hub waits for room.
func TestCatchingUpWaitsForRoom(t *testing.T) {
	const most = 8 << 10
	inBubble(t, 1, keep(1000), func(r *replicas) {
		body := json.RawMessage(`"` + strings.Repeat("x", most-2) + `"`)
		publish := func() channels.Position {
			res, err := r.hubs[0].Publish(context.Background(), "c", channels.Message{Header: "n", Body: body})
			require.NoError(t, err)
			return res.Position
		}
		at := publish()
		for range 49 {
			publish()
		}
		sub, err := r.hubs[0].Subscribe(context.Background(), "c", &at)
		require.NoError(t, err)
		defer sub.Close()
		n := at.Offset
		for m, err := range sub.Messages() {
			require.NoError(t, err)
			n++
			require.Equal(t, n, m.Position.Offset)
			time.Sleep(10 * time.Millisecond)
			if n == 20 {
				publish() // while it catches up
			}
			if n == 51 {
				break
			}
		}
	}, func(_ int, o *channels.Options) { o.MaxMessageBytes, o.QueueBytes = most, 2*most })
}

// The hub reads only a bounded part of the history for a subscriber that catches
// up but does not read.
func TestCatchingUpIsBoundedInBytes(t *testing.T) {
	m, err := store.NewMemory(store.MemoryOptions{MaxBytes: 1 << 30})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	hub := newHub(t, channels.Options{Store: m, Channel: history, Logger: quiet})
	big := msg("x", `"`+strings.Repeat("x", 200<<10)+`"`)
	for range 130 {
		_, err := hub.Publish(t.Context(), "c", big)
		require.NoError(t, err)
	}
	before := heap()
	const n = 10
	for range n {
		s, err := hub.Subscribe(t.Context(), "c", &channels.Position{})
		require.NoError(t, err)
		defer s.Close()
		for _, err := range s.Messages() { // the first one has come: now it waits for room
			require.NoError(t, err)
			break
		}
	}
	// For each: its queue of 1 MiB, a page of a quarter of that, and what is being encoded.
	require.Less(t, int(heap()-before)/n, 3<<20)
}
