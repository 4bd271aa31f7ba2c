package channels_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

func TestOpeningAfterAPosition(t *testing.T) {
	inBubble(t, 1, keep(200), func(r *replicas) {
		at := r.publishAll(0, "c", 1, 400) // 201 … 400 are kept
		epoch, top := at[1].Epoch, at[400]
		for _, c := range []struct {
			name     string
			since    channels.Position
			messages int
			from     channels.Position
			reason   string
		}{
			{"the present", top, 0, top, ""},
			{"a little before", at[390], 10, at[390], ""},
			{"more than a page", at[250], 128, at[250], ""},
			{"trimmed", at[100], 0, top, "trimmed"},
			{"the beginning", channels.Position{}, 0, top, "trimmed"},
			{"beyond the end", channels.Position{Epoch: epoch, Offset: 500}, 0, top, "epoch"},
			{"another log", channels.Position{Epoch: "other", Offset: 390}, 0, top, "epoch"},
			{"another log's beginning", channels.Position{Epoch: "other"}, 0, top, "epoch"},
		} {
			s, o := r.open(0, "c", &c.since)
			require.Equal(t, c.from, o.From, c.name)
			require.Equal(t, c.reason, o.Reason, c.name)
			require.Len(t, o.Messages, c.messages, c.name)
			require.Equal(t, channels.Position{Epoch: epoch, Offset: c.from.Offset + uint64(c.messages)}, o.At, c.name)
			synctest.Wait()
			got := append(o.Messages, s.close()...)
			wantAll(t, got, c.from.Offset+1, 400)
			require.Empty(t, s.resets, c.name)
		}
	})
}

func TestOpeningOfAChannelWithoutHistory(t *testing.T) {
	inBubble(t, 1, nil, func(r *replicas) {
		s, o := r.open(0, "c", nil)
		require.Equal(t, channels.Opening{}, o)
		_, o = r.open(0, "c", &channels.Position{Epoch: "e", Offset: 1})
		require.Equal(t, channels.Opening{Reason: "no_history"}, o)
		_, _, err := channels.SubscribeOpening(context.Background(), r.hubs[0], "c", nil, 1)
		require.ErrorIs(t, err, channels.ErrNoHistory)
		_, _, err = channels.SubscribeOpening(context.Background(), r.hubs[0], "c", &channels.Position{}, 1)
		require.ErrorIs(t, err, channels.ErrBadQuery)
		r.publish(0, "c", 1)
		synctest.Wait()
		require.Equal(t, "0", s.story(), "a message without a position")
	})
}

// What is held while the Store hangs is bounded, and the Store's time is, too.
func TestOpeningWhileTheStoreHangs(t *testing.T) {
	inBubble(t, 1, keep(1000), func(r *replicas) {
		defer r.subscribe(0, "c", nil).close()
		body := `"` + strings.Repeat("x", 1000) + `"`
		first := publish(t, r.hubs[0], "c", "n", body).Position
		r.store.lag.Store(int64(time.Second)) // the answer is on its way
		opened := make(chan channels.Opening)
		var s *subscriber
		go func() {
			var o channels.Opening
			s, o = r.open(0, "c", &channels.Position{})
			opened <- o
		}()
		synctest.Wait()
		for range 100 { // more than may be held
			publish(t, r.hubs[0], "c", "n", body)
			synctest.Wait() // the other subscriber has read it
		}
		o := <-opened
		require.Equal(t, first, o.At)
		r.store.lag.Store(0)
		settle(5 * time.Second)
		wantAll(t, append(o.Messages, s.messages()...), 1, 101)
		require.Empty(t, s.resets)

		r.store.stuck.Store(true)
		begin := time.Now()
		_, _, err := channels.SubscribeOpening(context.Background(), r.hubs[0], "c", &first, 0)
		require.ErrorIs(t, err, channels.ErrStoreUnavailable)
		require.Equal(t, 5*time.Second, time.Since(begin))
		r.store.stuck.Store(false)
		require.Equal(t, 2, subscribers(t, r.hubs[0], "c"))
	}, func(_ int, o *channels.Options) { o.MaxMessageBytes, o.QueueBytes = 4<<10, 16<<10 })
}
