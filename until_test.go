package channels_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// Authorize may say until when a subscription is allowed. A connection of one
// channel ends then, as it does with its identity.
func TestAuthorizeUntil(t *testing.T) {
	authorize := func(life ...time.Duration) func(context.Context, channels.Request) error {
		return func(_ context.Context, r channels.Request) error {
			for _, d := range life {
				if r.Until == nil {
					return channels.ErrForbidden
				}
				until := time.Time{}
				if d != 0 {
					until = time.Now().Add(d)
				}
				r.Until(until)
			}
			return nil
		}
	}
	t.Run("the earliest counts", func(t *testing.T) {
		const life = 2 * time.Second // enough to connect on a busy machine
		reasons := make(departures, 2)
		s := serve(t, channels.Options{Authorize: authorize(time.Hour, life, 0, 2*time.Hour), OnDisconnect: reasons.hook})
		begin := time.Now()
		w, e := s.join("a", ""), s.stream("a", "")
		_, ce := w.wantClose(3000)
		require.GreaterOrEqual(t, time.Since(begin), life)
		require.Equal(t, "expired", ce.Reason)
		require.ErrorIs(t, <-reasons, channels.ErrExpired)
		e.wantEnd("expired")
		require.ErrorIs(t, <-reasons, channels.ErrExpired)
	})
	t.Run("over already", func(t *testing.T) {
		s := serve(t, channels.Options{Authorize: authorize(time.Hour, -1)})
		s.handshake("/channel/a/").wantFail(t, 401, "expired")
		s.getStream("/channel/a/").wantFail(t, 401, "expired")
		require.Zero(t, s.hub.Stats().Channels)
	})
	t.Run("never", func(t *testing.T) {
		s := serve(t, channels.Options{Authorize: authorize(0)})
		w := s.join("a", "")
		publish(t, s.hub, "a", "x", "1")
		w.want("x", "1")
	})
	t.Run("nothing that could end", func(t *testing.T) {
		var asked atomic.Int32
		s := serve(t, channels.Options{Channel: every(channels.ChannelOptions{HistorySize: 1, Presence: channels.PresenceList}), Authorize: func(_ context.Context, r channels.Request) error {
			asked.Add(1)
			if r.Until != nil || r.Token != "" || r.Pattern {
				return channels.ErrForbidden
			}
			return nil
		}})
		s.get("/channel/a/").wantFail(t, 426, "upgrade_required")
		for _, path := range []string{"/v1/channel", "/v1/channel/a", "/v1/channel/a/history", "/v1/channel/a/presence"} {
			require.Equal(t, "", s.get(path).code(), path)
		}
		require.Equal(t, "", s.post("/v1/channel/a/publish", `{"header":"x","body":1}`).code())
		require.EqualValues(t, 6, asked.Load())
	})
}
