package channels_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

// subscribeLast subscribes with the newest n messages.
func (r *replicas) subscribeLast(i int, channel string, n int) *subscriber {
	r.t.Helper()
	sub, err := r.hubs[i].SubscribeLast(context.Background(), channel, n)
	require.NoError(r.t, err)
	r.t.Cleanup(sub.Close)
	return collect(sub)
}

// The newest messages come first, through each door, and then what follows.
func TestLastComesFirst(t *testing.T) {
	s := serve(t, channels.Options{Channel: keep(5)})
	for n := range 8 {
		publish(t, s.hub, "c", "m", strconv.Itoa(n+1))
	}
	now := 9 // the next message
	for _, c := range []struct {
		last  string
		first int // of those that are kept then; 0 for none
	}{{"3", 6}, {"1", 8}, {"5", 4}, {"1000", 4}, {"0", 0}, {"", 0}} {
		t.Run("last="+c.last, func(t *testing.T) {
			w, e := s.join("c", "?last="+c.last), s.stream("c", "?last="+c.last)
			n, _ := strconv.Atoi(c.last)
			sub, err := s.hub.SubscribeLast(t.Context(), "c", n)
			require.NoError(t, err)
			defer sub.Close()
			first := now
			if c.first > 0 {
				first += c.first - 9
			}
			require.EqualValues(t, first-1, sub.Position().Offset, "it begins before the first one")
			publish(t, s.hub, "c", "m", strconv.Itoa(now))
			place, err := e.read()
			require.NoError(t, err)
			require.Equal(t, sseEvent{id: sub.Position().String(), lines: 1}, place)
			for n := first; n <= now; n++ {
				want := strconv.Itoa(n)
				require.EqualValues(t, n, w.want("m", want).Offset)
				e.want("m", want)
				require.Equal(t, want, string(next(t, sub).Body))
			}
			now++
			w.c.CloseNow()
			e.close()
		})
	}
}

// What a browser has heard last counts more than what the page once asked for.
func TestLastEventIDCountsMoreThanLast(t *testing.T) {
	s := serve(t, channels.Options{Channel: keep(10)})
	for n := range 5 {
		publish(t, s.hub, "c", "m", strconv.Itoa(n+1))
	}
	e := s.stream("c", "?last=2")
	e.want("m", "4")
	e.close()
	for _, query := range []string{"?last=2", "?last=2&since=:0", "?last=x"} { // it would never come again after an error
		s.stream("c", query, "Last-Event-ID", e.lastID).want("m", "5")
	}
}

func TestLastRefuses(t *testing.T) {
	s := serve(t, channels.Options{Channel: named(map[string]channels.ChannelOptions{"h": {HistorySize: 5}})})
	for _, c := range []struct{ channel, query, code, says string }{
		{"h", "last=-1", "bad_query", `last is "-1"`},
		{"h", "last=1001", "bad_query", `last is "1001"; it must be a whole number, 0 to 1000`},
		{"h", "last=x", "bad_query", `last is "x"`},
		{"h", "last=1.5", "bad_query", `last is "1.5"`},
		{"h", "last=99999999999999999999", "bad_query", "last is"},
		{"h", "last=2&since=:0", "bad_query", "last and since exclude each other"},
		{"h", "last=2&last=3", "bad_query", "last"},
		{"plain", "last=2", "no_history", "keeps no history"},
	} {
		path := "/channel/" + c.channel + "/?" + c.query
		for name, a := range map[string]answer{"WebSocket": s.handshake(path), "stream": s.getStream(path)} {
			require.Equal(t, 400, a.status, "%s %s: %s", name, path, a.body)
			require.Equal(t, c.code, a.code(), "%s %s", name, path)
			require.Contains(t, a.message(), c.says, "%s %s", name, path)
		}
	}
	for _, c := range []struct {
		channel string
		n       int
		want    error
	}{{"h", -1, channels.ErrBadQuery}, {"h", 1001, channels.ErrBadQuery}, {"plain", 1, channels.ErrNoHistory}, {"a b", 1, channels.ErrBadChannel}} {
		_, err := s.hub.SubscribeLast(t.Context(), c.channel, c.n)
		require.ErrorIs(t, err, c.want, "%+v", c)
	}
	require.Equal(t, 0, subscribers(t, s.hub, "h"))
	require.Equal(t, 0, subscribers(t, s.hub, "plain"))
}

// What is published while the Store is read is neither missed nor doubled, whether the
// read has it or not.
func TestLastWhileOthersPublish(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		r.publishAll(0, "c", 1, 10)
		r.store.lag.Store(int64(50 * time.Millisecond)) // the answers are old when they come
		var subs []*subscriber
		var firsts []uint64
		stop := make(chan struct{})
		published := make(chan int)
		go func() {
			for n := 11; ; n++ {
				r.publish(n%2, "c", n)
				select {
				case <-stop:
					published <- n
					return
				case <-time.After(7 * time.Millisecond):
				}
			}
		}()
		for i := range 8 {
			synctest.Wait() // nobody publishes until the Store is read
			tops, err := r.store.log.Load().Tops(context.Background(), []string{"c"})
			require.NoError(t, err)
			n := 1 + 4*i
			firsts = append(firsts, uint64(max(1, int(tops[0].Offset)-n+1)))
			subs = append(subs, r.subscribeLast(i%2, "c", n))
		}
		close(stop)
		last := <-published
		settle(10 * time.Second)
		for i, s := range subs {
			wantAll(t, s.close(), firsts[i], uint64(last))
			require.Empty(t, s.resets)
		}
	})
}

// Whoever begins with the newest messages has missed none of those that came before,
// wherever the replica is.
func TestLastOnAReplicaThatIsElsewhere(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *replicas)
		want   string // of two messages, and what follows
	}{
		"in a log that was trimmed": {func(r *replicas) { r.publishAll(0, "c", 6, 9) }, "8 9 10"},
		"in a log that is lost":     {func(r *replicas) { r.lose() }, "epoch@0 1"}, // at whose end it was
		"in a log that has begun anew": {func(r *replicas) {
			r.lose()
			r.drop(func() { r.publishAll(0, "c", 1, 3) })
		}, "2 3 4"},
		"on a replica that lags": {func(r *replicas) {
			r.drop(func() { r.publishAll(0, "c", 6, 20) })
		}, "19 20 21"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, keep(4), func(r *replicas) {
				defer r.subscribe(1, "c", nil).close() // so that the replica does not ask where the channel is
				r.publishAll(0, "c", 1, 5)
				synctest.Wait()
				c.change(r)
				s := r.subscribeLast(1, "c", 2)
				settle(5 * time.Second)
				r.publish(0, "c", 0)
				settle(5 * time.Second)
				s.close()
				require.Equal(t, c.want, s.story())
			})
		})
	}
}

// Many long messages: the newest come that fit.
func TestLastIsBoundedInBytes(t *testing.T) {
	inBubble(t, 1, keep(1000), func(r *replicas) {
		for range 50 {
			publish(t, r.hubs[0], "c", "n", `"`+long(1000)+`"`)
		}
		s := r.subscribeLast(0, "c", 1000)
		synctest.Wait()
		got := s.close()
		require.Greater(t, len(got), 2)
		require.LessOrEqual(t, len(got), 8, "a quarter of the queue")
		wantAll(t, got, 51-uint64(len(got)), 50)
	}, func(_ int, o *channels.Options) { o.MaxMessageBytes, o.QueueBytes = 4<<10, 32<<10 })
}

// A message that somebody has removed is not missed: it was not there.
func TestLastLeavesOutWhatCannotBeAMessage(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		r.publishAll(0, "c", 1, 5)
		_, err := r.store.Append(context.Background(), "c", store.Entry{Header: "reset", Body: []byte("1")}, store.AppendOptions{Size: 10, TTL: time.Hour})
		require.NoError(t, err)
		r.publish(0, "c", 7)
		s := r.subscribeLast(0, "c", 3)
		r.publish(0, "c", 8)
		synctest.Wait()
		require.Equal(t, "5 7 8", s.story())
	})
}

// The Store fails or hangs: the subscriber is refused in time, and nothing of it is left.
func TestLastNeedsTheStore(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		defer r.subscribe(0, "c", nil).close()
		r.publishAll(0, "c", 1, 5)
		refused := func(path string) {
			t.Helper()
			w := get(r.hubs[0], path, "Accept", "text/event-stream")
			require.Contains(t, w.Body.String(), `"code":"store_unavailable"`)
		}
		r.store.down.Store(true)
		_, err := r.hubs[0].SubscribeLast(context.Background(), "c", 2)
		require.ErrorIs(t, err, channels.ErrStoreUnavailable)
		refused("/channel/c/?last=2")
		r.store.down.Store(false)

		r.store.stuck.Store(true)
		begin := time.Now()
		_, err = r.hubs[0].SubscribeLast(context.Background(), "c", 2)
		require.ErrorIs(t, err, channels.ErrStoreUnavailable)
		require.Equal(t, 5*time.Second, time.Since(begin))
		refused("/channel/c/?last=2")
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = r.hubs[0].SubscribeLast(ctx, "c", 2)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		r.store.stuck.Store(false)

		require.Equal(t, 1, subscribers(t, r.hubs[0], "c"))
		s := r.subscribeLast(0, "c", 2)
		synctest.Wait()
		require.Equal(t, "4 5", s.story())
	})
}

// A connection that was refused its newest messages is told to the app as gone.
func TestLastRefusedEndsTheConnection(t *testing.T) {
	var broken atomic.Bool
	gone := make(departures, 2)
	s := serve(t, channels.Options{Channel: keep(5), OnDisconnect: gone.hook, MaxConnections: 1,
		Store: &guardedStore{newMemory(t), func(_ context.Context, method string) error {
			if broken.Load() && method == "Range" {
				return errors.New("test: broken")
			}
			return nil
		}}})
	publish(t, s.hub, "c", "m", "1")
	broken.Store(true)
	a := s.handshake("/channel/c/?last=2")
	require.Equal(t, 503, a.status)
	require.Equal(t, "store_unavailable", a.code())
	require.Len(t, gone, 1)
	broken.Store(false)
	s.join("c", "?last=2").want("m", "1")
}

// A typed subscription begins with the newest, too.
func TestLastOfOneType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		numbers := channels.Of[int](newHub(t, channels.Options{Channel: keep(10)}), "c")
		for n := range 5 {
			_, err := numbers.Publish(t.Context(), "n", n+1)
			require.NoError(t, err)
		}
		sub, err := numbers.SubscribeLast(t.Context(), 2)
		require.NoError(t, err)
		defer sub.Close()
		got := []int{}
		for v, err := range sub.Values() {
			require.NoError(t, err)
			if got = append(got, v.Body); len(got) == 2 {
				break
			}
		}
		require.Equal(t, []int{4, 5}, got)
		_, err = numbers.SubscribeLast(t.Context(), -1)
		require.ErrorIs(t, err, channels.ErrBadQuery)
	})
}

// However a query is spelt, the answer is a stream or a proper error.
func FuzzLast(f *testing.F) {
	for _, s := range []string{"1", "-1", "1000", "1001", "", " 1", "0x1", "1e3", "٣", "+1", "1&since=:0", "%31", "\x00"} {
		f.Add(s)
	}
	h := newHub(f, channels.Options{Channel: keep(3)})
	publish(f, h, "c", "m", "1")
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsAny(s, "&;%+#") {
			return // another query
		}
		r := httptest.NewRequest("GET", "/channel/c/", nil)
		r.URL.RawQuery = "last=" + s
		r.Header.Set("Accept", "text/event-stream")
		ctx, cancel := context.WithCancel(r.Context())
		cancel() // a stream ends at once
		w := httptest.NewRecorder()
		h.Handler().ServeHTTP(timelessRecorder{w}, r.WithContext(ctx))
		n, err := strconv.Atoi(s)
		if good := s == "" || err == nil && n >= 0 && n <= 1000; !good {
			require.Equal(t, 400, w.Code, "%q", s)
			require.Contains(t, w.Body.String(), "bad_query", fmt.Sprintf("%q", s))
		} else {
			require.NotEqual(t, 400, w.Code, "%q: %s", s, w.Body)
		}
	})
}
