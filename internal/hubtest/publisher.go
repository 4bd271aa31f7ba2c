package hubtest

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
)

// SayWhoPublished checks that two hubs say who published a message over a
// connection: to their Go subscribers and in the history, of the other hub too. Of
// what the app and HTTP publish they say nothing, nor where it is hidden, nor to the
// clients of one channel. Both say the same time, which is that of the history, and
// none where nothing is kept. options returns what a hub needs to work with the other one.
func SayWhoPublished(t *testing.T, options func(id string) channels.Options) {
	t.Helper()
	ann := channels.Identity{ID: "ann", Info: json.RawMessage(`{"name": "Änn"}`)}
	asAnn := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(channels.WithIdentity(r.Context(), ann)))
		})
	}
	var clients sync.Map // the connections that have published, by channel
	open := func(id string) *Server {
		o := options(id)
		o.Channel = func(name string) channels.ChannelOptions {
			o := channels.ChannelOptions{HidePublishers: strings.HasPrefix(name, "hidden")}
			if strings.HasSuffix(name, "kept") {
				o.HistorySize = 1000
			}
			return o
		}
		o.OnPublish = func(_ context.Context, p *channels.Publication) error {
			if p.Client != "" {
				clients.Store(p.Channel, p.Client)
			}
			return nil
		}
		return Serve(t, o, asAnn)
	}
	a, b := open("a"), open("b")
	for _, channel := range []string{"live", "kept", "hidden", "hidden-kept"} {
		here, there := collect(t, a, channel), collect(t, b, channel)
		basetest.Eventually(t, "what one hub publishes reaches the other", func() bool {
			a.PublishGo(channel, "0")
			return len(there) > 0
		})
		w := a.DialRaw()
		w.Upgrade("/channel/" + channel + "/")
		w.Send(WSFrame(RawText, `{"header":"said","body":1}`))
		for {
			f, err := w.Next()
			require.NoError(t, err)
			require.NotContains(t, string(f.Payload), "ann")
			if strings.HasPrefix(string(f.Payload), `{"header":"said","body":1`) {
				break
			}
		}
		Body(t, Request(t, t.Context(), a.HTTP.Client(), "POST", a.HTTP.URL+"/v1/channel/"+channel+"/publish", `{"header":"last","body":2}`))

		client, _ := clients.Load(channel)
		want := &channels.Publisher{Client: client.(string), User: ann.ID, Info: ann.Info}
		if strings.HasPrefix(channel, "hidden") {
			want = nil
		}
		check := func(m channels.Message) (last bool) {
			if m.Header == "said" {
				require.Equal(t, want, m.Publisher, channel)
			} else {
				require.Nil(t, m.Publisher, "%s on %s has no connection", m.Header, channel)
			}
			return m.Header == "last"
		}
		times := map[string][]time.Time{} // by header
		for _, got := range []<-chan channels.Message{here, there} {
			for said := false; ; {
				m := <-got
				said = said || m.Header == "said"
				times[m.Header] = append(times[m.Header], m.Time)
				if check(m) {
					require.True(t, said)
					break
				}
			}
		}
		if !strings.HasSuffix(channel, "kept") {
			require.Equal(t, []time.Time{{}, {}}, times["last"])
			continue
		}
		h, err := b.Hub.History(t.Context(), channel, channels.HistoryQuery{Limit: 2})
		require.NoError(t, err)
		require.Equal(t, "said", h.Messages[0].Header)
		require.False(t, check(h.Messages[0]))
		require.True(t, check(h.Messages[1]))
		for _, m := range h.Messages {
			require.False(t, m.Time.IsZero())
			require.Len(t, times[m.Header], 2)
			for _, at := range times[m.Header] {
				require.True(t, m.Time.Equal(at), "%s on %s: %v, but %v", m.Header, channel, m.Time, at)
			}
		}
		text := Body(t, Request(t, t.Context(), b.HTTP.Client(), "GET", b.HTTP.URL+"/v1/channel/"+channel+"/history", ""))
		require.Contains(t, text, "said")
		require.NotContains(t, text, "ann")
	}
}

// collect returns the messages of a Go subscriber, from now on until the test ends.
func collect(t *testing.T, s *Server, channel string) <-chan channels.Message {
	t.Helper()
	sub, err := s.Hub.Subscribe(context.Background(), channel, nil)
	require.NoError(t, err)
	got := make(chan channels.Message, 10_000)
	var reading sync.WaitGroup
	reading.Go(func() { // ends with sub
		for m, err := range sub.Messages() {
			if err != nil {
				return
			}
			got <- m
		}
	})
	t.Cleanup(func() {
		sub.Close()
		reading.Wait()
	})
	return got
}
