package zmqgateway_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
	"github.com/channels-go/channels/zmqgateway"
)

// longest gives messages more time than a test takes.
func longest(o *setup) { o.Whole, o.Crowded = time.Hour, time.Hour }

// hurried gives messages only this long while others wait for their room.
func hurried(crowded time.Duration) change {
	return func(o *setup) { o.Whole, o.Crowded = time.Hour, crowded }
}

// flood has strangers connect to Pull and Rep in turn, send this, and come again
// when they are cut off. It returns what ends them.
func flood(t *testing.T, g *zmqgateway.Gateway, strangers int, sent ...[]byte) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	push, deal := shaken("PUSH", sent...), shaken("DEALER", sent...)
	for i := range strangers {
		address, sent := pullOf(g), push
		if i%2 == 0 {
			address, sent = repOf(g), deal
		}
		running.Go(func() {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
				if err != nil {
					continue
				}
				ended := context.AfterFunc(ctx, func() { c.Close() })
				c.Write(sent)
				io.Copy(io.Discard, c)
				ended()
				c.Close()
			}
		})
	}
	return func() { cancel(); running.Wait() }
}

// announced is the header of a last frame of this size.
func announced(size int) []byte { return binary.BigEndian.AppendUint64([]byte{2}, uint64(size)) }

// json200K is a body that the hub accepts and that has to ask for room.
var json200K = `"` + strings.Repeat("x", 200_000) + `"`

// 200 strangers announce 256 KiB each and send half of it, again and again. What
// they hold together stays within the bound, small messages are not held up, and
// large ones get through, with and without an answer.
func TestStrangersWithHalfMessages(t *testing.T) {
	const most = 16 << 20
	var log logbook
	hub, g := start(t, hurried(500*time.Millisecond), withRoom(most), withLog(&log))
	push, req := dialPush(t, g), dialReq(t, g)
	eventually(t, "both have shaken hands", func() bool { return zmqgateway.Entered(g) == 2 }) // otherwise the crowd might push them out first
	sub, err := hub.Subscribe(t.Context(), "a", nil)
	require.NoError(t, err)
	defer sub.Close()
	began := time.Now()
	stop := flood(t, g, 200, announced(256<<10), make([]byte, 128<<10))
	defer func() {
		stop()
		eventually(t, "all is given back", func() bool { return zmqgateway.Unfinished(g) == 0 })
	}()
	eventually(t, "there is no room", func() bool { return zmqgateway.Unfinished(g) == most/2 })
	for i := range 12 {
		body := "1"
		if i >= 10 {
			body = json200K
		}
		push.send(t, "a", "pushed", body)
		req.send(t, "", "publish", "a", "asked", body)
		require.Equal(t, []string{"", `{"status":"ok"}`}, req.next(t))
		got := map[string]int{}
		for m, err := range sub.Messages() {
			require.NoError(t, err)
			if got[m.Header] = len(m.Body); len(got) == 2 {
				break
			}
		}
		require.Equal(t, map[string]int{"pushed": len(body), "asked": len(body)}, got)
		require.LessOrEqual(t, zmqgateway.Unfinished(g), most)
	}
	eventually(t, "who made room is counted", func() bool { return g.Stats().Refused >= 100 })
	require.LessOrEqual(t, log.Count("refused a connection"), 2*(2+int(time.Since(began)/time.Second)), "one record a second, of two ports")
	eventually(t, "it is logged", func() bool { return log.Has("MaxUnfinishedBytes") })
}

// 200 strangers without the token announce 256 KiB each, and come again when they
// are cut off. A program that has sent a message with the token before waits
// neither for those that stay, which would be an hour, nor for those that come
// again.
func TestKnownSendersDoNotWaitForStrangers(t *testing.T) {
	for name, c := range map[string]struct {
		crowded time.Duration
		refused int64 // so often strangers have to make room before the test ends
	}{"that stay": {time.Hour, 0}, "that come again": {20 * time.Millisecond, 100}} {
		t.Run(name, func(t *testing.T) {
			const token, most = "0123456789abcdef", 16 << 20
			_, g := start(t, hurried(c.crowded), withToken(token), withRoom(most), func(o *setup) {
				o.Logger = slog.New(slog.DiscardHandler)
			})
			push, req := dialPush(t, g), dialReq(t, g)
			published := int64(0)
			send := func(body string) {
				t.Helper()
				push.send(t, "a", "h", body, token)
				req.send(t, "", "publish", "a", "h", body, token)
				require.Equal(t, []string{"", `{"status":"ok"}`}, req.next(t))
				published += 2
				eventually(t, "both are published", func() bool { return g.Stats().Published == published })
			}
			send("1")
			defer flood(t, g, 200, announced(256<<10))()
			full := func() bool { return zmqgateway.Unfinished(g) == most/2 }
			eventually(t, "strangers have no room", full)
			for n, began := 0, time.Now(); n < 20 || g.Stats().Refused < c.refused; n++ {
				send(json200K)
				require.Less(t, time.Since(began), 3*patience, "strangers are not cut off")
			}
			eventually(t, "strangers still hold all of theirs", full)
		})
	}
}

// While there is no room, a message waits its turn and nothing of it is lost. A
// message that has room, and still has time, is left alone.
func TestRoomIsWaitedFor(t *testing.T) {
	let := make(chan struct{})
	g := newGateway(t, slowHub{let: let}, longest, withRoom(2<<20))
	// One is being published, which cannot be ended, and one is on its way.
	publishing, coming, last := dialPush(t, g), dialPush(t, g), dialPush(t, g)
	publishing.send(t, "a", "h", `"`+strings.Repeat("x", 500_000)+`"`)
	eventually(t, "it is there", func() bool { return zmqgateway.Unfinished(g) > 500_000 })
	write(t, coming.tcp, frame(1, "a"), frame(1, "h"), announced(500_000))
	eventually(t, "it is announced", func() bool { return zmqgateway.Unfinished(g) > 1_000_000 })
	sent := make(chan error, 1)
	go func() {
		sent <- last.SendMsg(zmq4.NewMsgFrom([]byte("a"), []byte("h"), []byte(`"`+strings.Repeat("x", 1_000_000)+`"`)))
	}()
	// A small one does not wait for room.
	req := dialReq(t, g)
	req.send(t, "", "nonsense")
	require.Contains(t, req.next(t)[1], "bad_request")
	require.Less(t, zmqgateway.Unfinished(g), 1<<20)
	write(t, coming.tcp, []byte(`"`+strings.Repeat("x", 499_998)+`"`))
	for range 3 {
		let <- struct{}{}
	}
	require.NoError(t, <-sent)
	eventually(t, "all three are published", func() bool { return g.Stats().Published == 3 })
	eventually(t, "all is given back", func() bool { return zmqgateway.Unfinished(g) == 0 })
	require.Zero(t, g.Stats().Refused)
}

// A message that took long to come makes room for others, but not one that waits
// to be published.
func TestWhoMakesRoom(t *testing.T) {
	let := make(chan struct{})
	var log logbook
	g := newGateway(t, slowHub{let: let}, hurried(50*time.Millisecond), withRoom(2<<20), withLog(&log))
	publishing, slow, last := dialPush(t, g), dialPush(t, g), dialPush(t, g)
	body := `"` + strings.Repeat("x", 500_000) + `"`
	publishing.send(t, "a", "h", body)
	eventually(t, "it is there", func() bool { return zmqgateway.Unfinished(g) > 500_000 && zmqgateway.Arriving(g) == 0 })
	write(t, slow.tcp, announced(500_000))
	eventually(t, "it is announced", func() bool { return zmqgateway.Unfinished(g) > 1_000_000 })
	trickle := make(chan struct{})
	go func() { // slow, but not idle, so that only the need for room ends it
		defer close(trickle)
		for {
			if _, err := slow.tcp.Write([]byte{'x'}); err != nil {
				return
			}
			time.Sleep(zmtp.IdleTimeout / 20)
		}
	}()
	last.send(t, "a", "h", body)
	requireHungUp(t, slow.tcp)
	<-trickle
	eventually(t, "it is counted", func() bool { return g.Stats().Refused == 1 })
	eventually(t, "it is logged", func() bool { return log.Has("MaxUnfinishedBytes") })
	publishing.send(t, "a", "h", "1")
	for range 3 {
		let <- struct{}{}
	}
	eventually(t, "all others are published", func() bool { return g.Stats().Published == 3 })
	require.EqualValues(t, 1, g.Stats().Refused)
}

// For messages that wait for room, nothing is allocated, and they do not hold up
// Close.
func TestCloseWhileOthersWaitForRoom(t *testing.T) {
	const most = 8 << 20
	_, g := start(t, longest, withRoom(most))
	var all []*socket
	for range 100 {
		all = append(all, dialPush(t, g))
	}
	stacks := make([]byte, 4<<20)
	before := heap()
	for _, s := range all {
		write(t, s.tcp, frame(1, "a"), announced(1<<20-1))
	}
	eventually(t, "there is no room", func() bool { return zmqgateway.Unfinished(g) == most/2 })
	eventually(t, "all others wait", func() bool {
		time.Sleep(100 * time.Millisecond) // each look stops all that runs
		return bytes.Count(stacks[:runtime.Stack(stacks, true)], []byte("(*room).take(")) == len(all)-most/2>>20
	})
	require.Less(t, heap()-before, int64(most/2+2<<20))
	zmtptest.RequireCloses(t, g)
	require.Zero(t, zmqgateway.Unfinished(g))
}

// A stranger that makes way ends at once, even while it waits for room.
func TestWhoWaitsForRoomMakesWay(t *testing.T) {
	g := newGateway(t, slowHub{}, longest, withRoom(2<<20), func(o *setup) { o.MaxConnections = 2 })
	waiting, holding := dialPush(t, g), dialPush(t, g)
	write(t, holding.tcp, announced(1<<20))
	eventually(t, "there is no room", func() bool { return zmqgateway.Unfinished(g) == 1<<20 })
	write(t, waiting.tcp, announced(1<<20))
	stacks := make([]byte, 4<<20)
	eventually(t, "it waits", func() bool {
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("(*room).take("))
	})
	dialPush(t, g)
	eventually(t, "it has ended", func() bool { return g.Stats().Refused == 1 })
	require.Equal(t, 1<<20, zmqgateway.Unfinished(g), "the other one has not")
}

// A message with a second large frame never waits for room while it holds some:
// two such messages would wait for each other.
func TestTwoLargeFrames(t *testing.T) {
	_, g := start(t, longest, withRoom(2<<20))
	large := strings.Repeat("x", 400_000)
	req := dialReq(t, g)
	req.send(t, "", large, large)
	require.Contains(t, req.next(t)[1], "bad_request")
	a, b := dialReq(t, g), dialReq(t, g)
	for _, s := range []*socket{a, b} {
		write(t, s.tcp, []byte{3}, announced(len(large))[1:], []byte(large))
	}
	eventually(t, "both hold their first frame", func() bool { return zmqgateway.Unfinished(g) > 2*len(large) })
	write(t, b.tcp, announced(len(large)))
	requireHungUp(t, b.tcp)
	write(t, a.tcp, announced(len(large)), []byte(large))
	require.Contains(t, a.next(t)[0], "bad_request")
	require.EqualValues(t, 1, g.Stats().Refused)
}
