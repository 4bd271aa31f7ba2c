package fanout

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"
)

var errSlow, errCut = errors.New("slow"), errors.New("cut")

// A receiver counts what its outbox asks of it.
type receiver struct {
	Outbox
	group  Group
	woken  atomic.Int32
	killed atomic.Pointer[error]
}

func (r *receiver) Wake()          { r.woken.Add(1) }
func (r *receiver) Kill(err error) { r.killed.Store(&err) }

// roomFor is a queue for so many frames of 10 bytes.
func roomFor(frames int) int { return frames * text(nil, Said, "0123456789").Size() }

func newReceiver(t *testing.T, e *Engine, as Format) *receiver {
	r := &receiver{group: e.Group()}
	r.Init(e, r, as)
	t.Cleanup(func() { r.Abandon(nil); require.Zero(t, e.Queued(), "what waits no longer is not counted") })
	return r
}

// slowConfig is that of an engine whose queues hold so many frames.
func slowConfig(frames int) Config {
	return Config{QueueBytes: roomFor(frames), WriteTimeout: time.Second, Slow: Farewell{Last: []*Frame{text(nil, Said, "too slow")}, Cause: errSlow}}
}

// send sends texts of 10 bytes that begin with these words.
func (r *receiver) send(g *Group, kind Kind, policy Policy, words ...string) {
	for _, w := range words {
		r.Send(text(g, kind, w+strings.Repeat(".", 10-len(w))), policy)
	}
}

// rest takes all that waits, by its words.
func (r *receiver) rest() (words []string) {
	for {
		frames := r.Take(nil)
		if len(frames) == 0 {
			return words
		}
		for _, f := range frames {
			words = append(words, strings.TrimRight(string(f.Text()), "."))
		}
	}
}

func TestOutboxWakesOneDrainer(t *testing.T) {
	r := newReceiver(t, newEngine(t, slowConfig(10)), SSE)
	r.send(&r.group, Message, Close, "a", "b")
	require.EqualValues(t, 1, r.woken.Load())
	require.Len(t, r.Take(nil), 2)
	r.send(&r.group, Message, Close, "c")
	require.EqualValues(t, 1, r.woken.Load(), "it may take more")
	require.Equal(t, []string{"c"}, r.rest())
	r.send(&r.group, Message, Close, "d")
	require.EqualValues(t, 2, r.woken.Load())
	require.False(t, r.SendIfIdle(Ping))
	require.Equal(t, []string{"d"}, r.rest())
	require.True(t, r.SendIfIdle(Ping))
	require.Equal(t, []string{""}, r.rest())
}

func TestOutboxQueuesWithoutWaking(t *testing.T) {
	r := newReceiver(t, newEngine(t, slowConfig(3)), WebSocket)
	r.Flush()
	require.Zero(t, r.woken.Load(), "nothing waits")
	r.Queue(text(nil, Said, "0123456789"), Close)
	r.Queue(text(nil, Said, "1123456789"), Close)
	require.Zero(t, r.woken.Load())
	r.Flush()
	r.Flush()
	require.EqualValues(t, 1, r.woken.Load())
	require.Len(t, r.Take(nil), 2)
	require.Empty(t, r.Take(nil))
	for range 4 {
		r.Queue(text(nil, Said, "0123456789"), Close)
	}
	require.EqualValues(t, 1, r.woken.Load())
	ended, _ := r.Ended()
	require.True(t, ended, "it was full")
	r.Flush()
	require.EqualValues(t, 2, r.woken.Load())
}

func TestOutboxRide(t *testing.T) {
	r := newReceiver(t, newEngine(t, Config{QueueBytes: 1 << 20}), SSE)
	require.True(t, r.Ride(Ping))
	require.False(t, r.Ride(Ping), "one waits")
	require.Zero(t, r.woken.Load())
	r.send(&r.group, Message, Close, "a")
	require.EqualValues(t, 1, r.woken.Load())
	require.False(t, r.Ride(Ping), "it would come too late")
	require.Equal(t, []string{"", "a"}, r.rest())
	require.True(t, r.Ride(Ping))
	r.Flush()
	require.EqualValues(t, 2, r.woken.Load(), "it goes alone")
	require.Equal(t, []string{""}, r.rest())
	require.True(t, r.Ride(Ping))
	r.Send(NewPong([]byte("mine")), Close)
	r.Send(NewPong([]byte("newest")), Close)
	frames := r.Take(nil)
	require.Len(t, frames, 2, "a client's own ping does not take its place")
	require.Equal(t, "newest", string(frames[0].Bytes(WebSocket)[2:]))
	require.Equal(t, Ping, frames[1])
	require.Empty(t, r.Take(nil))
	require.True(t, r.Ride(Ping))
	r.Send(text(&r.group, Message, strings.Repeat("x", maxRidden)), Close)
	require.Equal(t, []*Frame{Ping}, r.Take(nil), "it has no long message copied")
	require.Len(t, r.Take(nil), 1)
	require.Empty(t, r.Take(nil))
	r.End(nil, nil, false)
	require.False(t, r.Ride(Ping))
}

func TestOutboxCloses(t *testing.T) {
	r := newReceiver(t, newEngine(t, slowConfig(3)), SSE)
	r.Send(&Frame{Kind: Place, Value: place("e:1")}, Close)
	r.send(&r.group, Message, Close, "a", "b", "c", "d")
	require.Equal(t, []string{"", "too slow"}, r.rest(), "the place stays")
	ended, cause := r.Ended()
	require.True(t, ended)
	require.Equal(t, errSlow, cause)
	require.EqualValues(t, 1, r.engine.Slow.Load())
	r.send(&r.group, Message, Close, "e")
	require.Empty(t, r.rest())
	require.True(t, r.Offer(text(nil, Said, "f")), "to wait for room is of no use")
	require.Empty(t, r.rest())
}

func TestOutboxDropsOldest(t *testing.T) {
	r := newReceiver(t, newEngine(t, slowConfig(4)), SSE)
	other := r.engine.Group()
	r.send(&other, Message, DropOldest, "x")
	r.send(&r.group, Message, DropOldest, "a", "b", "c", "d")
	require.Equal(t, []string{"x", "b", "c", "d"}, r.rest(), "a message replaces older ones of its group")
	require.EqualValues(t, 1, r.engine.Dropped.Load())
}

func TestOutboxKeepsLatest(t *testing.T) {
	r := newReceiver(t, newEngine(t, slowConfig(4)), SSE)
	other := r.engine.Group()
	r.send(&other, Message, KeepLatest, "x")
	r.send(&r.group, Message, KeepLatest, "a", "b", "c", "d")
	require.Equal(t, []string{"x", "d"}, r.rest())
	require.EqualValues(t, 3, r.engine.Superseded.Load())
}

func TestOutboxDropsEventsFirst(t *testing.T) {
	r := newReceiver(t, newEngine(t, slowConfig(4)), SSE)
	r.send(&r.group, Message, DropOldest, "a", "b")
	r.send(&r.group, Event, DropOldest, "join", "leave")
	r.send(nil, Said, DropOldest, "answer")
	require.Equal(t, []string{"a", "b", "leave", "answer"}, r.rest())
	r.send(&r.group, Message, DropOldest, "c", "d", "e", "f")
	r.send(nil, Said, DropOldest, "answer")
	require.Equal(t, []string{"d", "e", "f", "answer"}, r.rest())
	one := newReceiver(t, newEngine(t, slowConfig(1)), SSE)
	one.send(&one.group, Message, DropOldest, "a")
	one.send(&one.group, Event, DropOldest, "join")
	require.Equal(t, []string{"a"}, one.rest(), "an event is worth neither the newest message nor the connection")
}

func TestOutboxAnswersTheNewestPing(t *testing.T) {
	r := newReceiver(t, newEngine(t, slowConfig(1)), WebSocket)
	r.send(nil, Said, Close, "a")
	for _, s := range []string{"1", "2", "3"} {
		r.Send(NewPong([]byte(s)), Close)
	}
	frames := r.Take(nil)
	require.Len(t, frames, 2, "pongs take no room")
	var buf []byte
	b, last := r.Join(&buf, frames)
	require.Equal(t, "\x8a\x013\x81\x0aa.........", string(b), "a pong goes first")
	require.False(t, last)
	require.EqualValues(t, 1, r.Sent.Messages.Load())
	require.EqualValues(t, len(b), r.Sent.Bytes.Load())
}

func TestOutboxTakesWhatOneWriteHolds(t *testing.T) {
	r := newReceiver(t, newEngine(t, Config{}), WebSocket)
	long := strings.Repeat("x", writeBytes/2)
	for range 3 {
		r.Send(text(nil, Said, long), Close)
	}
	require.Len(t, r.Take(nil), 1)
	require.Len(t, r.Take(nil), 1)
	require.Len(t, r.Take(nil), 1)
	require.Empty(t, r.Take(nil))
}

func TestOutboxWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(slowConfig(4))
		r := newReceiver(t, e, SSE)
		require.True(t, r.WaitRoom(t.Context(), 1<<20), "an empty queue takes any frame")
		r.send(nil, Said, Close, "a", "b", "c")
		require.True(t, r.Roomy(roomFor(0)) == false && !r.Offer(text(nil, Said, "much longer than 10")))
		got := make(chan bool, 1)
		go func() { got <- r.WaitRoom(t.Context(), roomFor(1)) }()
		synctest.Wait()
		require.Empty(t, got)
		r.rest()
		require.True(t, <-got)

		r.send(nil, Said, Close, "a", "b", "c")
		ctx, cancel := context.WithCancel(t.Context())
		go func() { got <- r.WaitRoom(ctx, 1) }()
		synctest.Wait()
		cancel()
		require.False(t, <-got)
		go func() { got <- r.WaitRoom(t.Context(), 1) }()
		synctest.Wait()
		r.End(nil, errCut, false)
		require.False(t, <-got)
	})
}

func TestOutboxEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(slowConfig(10))
		r := newReceiver(t, e, SSE)
		over := 0
		r.WhenOver(func() { over++ })
		r.send(nil, Said, Close, "a")
		r.End([]*Frame{text(nil, Said, "bye")}, errCut, false)
		r.End([]*Frame{text(nil, Said, "again")}, errSlow, true)
		require.Equal(t, []string{"a", "bye"}, r.rest())
		require.Equal(t, 1, over)
		_, cause := r.Ended()
		require.Equal(t, errCut, cause)
		time.Sleep(time.Second + CloseTimeout - 1)
		synctest.Wait()
		require.Nil(t, r.killed.Load())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, errDribbled, *r.killed.Load(), "nobody may take the rest for ever")

		late := newReceiver(t, e, SSE)
		late.Abandon(errCut)
		late.WhenOver(func() { over++ })
		require.Equal(t, 2, over, "at once")
	})
}

func TestOutboxOfValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(slowConfig(10))
		r := newReceiver(t, e, Values)
		f := text(nil, Said, "a")
		f.Value = place("e:1")
		r.Send(f, Close)
		got, over := r.Next()
		require.Equal(t, place("e:1"), got.Value)
		require.False(t, over)
		got, over = r.Next()
		require.Nil(t, got)
		require.False(t, over)
		r.Send(f, Close)
		require.EqualValues(t, 2, r.woken.Load())
		r.End(nil, nil, false)
		require.NotZero(t, e.Queued())
		r.Disown()
		require.Zero(t, e.Queued())
		time.Sleep(time.Hour)
		require.Nil(t, r.killed.Load(), "it has for ever")
		got, _ = r.Next()
		require.NotNil(t, got)
		_, over = r.Next()
		require.True(t, over)
	})
}

// An outbox in which nothing waits keeps no frame: most connections are idle, and each
// would keep one of its own.
func TestOutboxKeepsNoFrame(t *testing.T) {
	for name, empty := range map[string]func(*receiver){
		"taken":     func(r *receiver) { r.Take(nil) },
		"ended":     func(r *receiver) { r.End(nil, errCut, true) },
		"abandoned": func(r *receiver) { r.Abandon(errCut) },
	} {
		for n := range 4 {
			t.Run(fmt.Sprint(n+1, " ", name), func(t *testing.T) {
				e := newEngine(t, Config{QueueBytes: 1 << 20})
				r := newReceiver(t, e, WebSocket)
				var sent []weak.Pointer[Frame]
				for range n + 1 {
					f := text(nil, Said, "word")
					sent = append(sent, weak.Make(f))
					r.Send(f, Close)
				}
				empty(r)
				runtime.GC()
				for i, f := range sent {
					require.Nil(t, f.Value(), i)
				}
				runtime.KeepAlive(r)
			})
		}
	}
}

func TestQueuedCountsAFrameOnce(t *testing.T) {
	e := newEngine(t, Config{})
	g := e.Group()
	rs := []*receiver{newReceiver(t, e, SSE), newReceiver(t, e, SSE), newReceiver(t, e, SSE)}
	f := text(&g, Message, "hello")
	c := g.Cast(f, len(rs))
	for _, r := range rs[1:] {
		c.To(&r.Outbox, Close)
	}
	c.Done()
	require.EqualValues(t, f.Size(), e.Queued())
	rs[1].rest()
	require.EqualValues(t, f.Size(), e.Queued())
	rs[2].rest()
	require.Zero(t, e.Queued())
}
