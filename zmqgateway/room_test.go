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

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/zmqgateway"
)

// hurried opens a gateway whose messages have these times to come.
func hurried(t *testing.T, hub zmqgateway.Bridge, whole, crowded time.Duration, unfinished int, log *slog.Logger) *zmqgateway.Gateway {
	t.Helper()
	o := options(t)
	o.MaxUnfinishedBytes, o.Logger = unfinished, log
	g, err := zmqgateway.NewHurried(hub, o, whole, crowded)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	return g
}

// announced is the header of a last frame of this size.
func announced(size int) []byte { return binary.BigEndian.AppendUint64([]byte{2}, uint64(size)) }

// json200K is a body that the hub accepts and that has to ask for room.
var json200K = `"` + strings.Repeat("x", 200_000) + `"`

// 200 strangers announce 1 MiB each and send half of it, again and again. What
// they hold together stays within the bound, small messages are not held up, and
// large ones get through, with and without an answer.
func TestStrangersWithHalfMessages(t *testing.T) {
	hub := newHub(t, channels.Options{})
	const most = 64 << 20
	var log logbook
	g := hurried(t, nobody(hub), time.Minute, 500*time.Millisecond, most, log.Logger())
	_, pull, rep := g.Addresses()
	push, req := dialSocket(t, pull, zmq4.Push), dialSocket(t, rep, zmq4.Req)
	eventually(t, "both have shaken hands", func() bool { return zmqgateway.Entered(g) == 2 }) // otherwise the crowd might push them out first
	sub, err := hub.Subscribe(t.Context(), "a", nil)
	require.NoError(t, err)
	defer sub.Close()
	began := time.Now()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	half := make([]byte, 512<<10)
	strangers := make(chan struct{}, 200)
	for i := range cap(strangers) {
		address, typ := pull, "PUSH"
		if i%2 == 0 {
			address, typ = rep, "DEALER"
		}
		go func() {
			defer func() { strangers <- struct{}{} }()
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
				if err != nil {
					continue
				}
				stop := context.AfterFunc(ctx, func() { c.Close() })
				c.Write(append(append(greeting("NULL"), ready(typ)...), announced(1<<20)...))
				c.Write(half)
				var b [256]byte
				for err == nil {
					_, err = c.Read(b[:])
				}
				stop()
				c.Close()
			}
		}()
	}
	defer func() {
		cancel()
		for range cap(strangers) {
			<-strangers
		}
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

// 900 strangers without the token announce 1 MiB each, and come again when they
// are cut off. A program that has sent a message with the token before does not
// wait for them, not even as long as one of them may take.
func TestKnownSendersDoNotWaitForStrangers(t *testing.T) {
	hub := newHub(t, channels.Options{})
	// The allowance is far more than two messages need on a busy machine.
	const token, allowance = "0123456789abcdef", 6 * time.Second
	g, err := zmqgateway.NewHurried(nobody(hub), zmqgateway.Options{Pull: "tcp://127.0.0.1:0", Rep: "tcp://127.0.0.1:0",
		Token: []byte(token), Logger: slog.New(slog.DiscardHandler)}, time.Minute, allowance)
	require.NoError(t, err)
	defer g.Close()
	_, pull, rep := g.Addresses()
	push, req := dialSocket(t, pull, zmq4.Push), dialSocket(t, rep, zmq4.Req)
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

	ctx, cancel := context.WithCancel(t.Context())
	var strangers sync.WaitGroup
	defer strangers.Wait()
	defer cancel()
	for i := range 900 {
		address, typ := pull, "PUSH"
		if i%2 == 0 {
			address, typ = rep, "DEALER"
		}
		strangers.Go(func() {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
				if err != nil {
					continue
				}
				stop := context.AfterFunc(ctx, func() { c.Close() })
				c.Write(append(append(greeting("NULL"), ready(typ)...), announced(1<<20)...))
				io.Copy(io.Discard, c)
				stop()
				c.Close()
			}
		})
	}
	eventually(t, "strangers have no room", func() bool { return zmqgateway.Unfinished(g) == 32<<20 })
	longest := time.Duration(0)
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	for end := time.Now().Add(allowance + allowance/3); time.Now().Before(end); <-pace.C {
		start := time.Now()
		send(json200K)
		longest = max(longest, time.Since(start))
	}
	t.Log("two messages took at most", longest)
	require.Less(t, longest, allowance)
	require.Positive(t, g.Stats().Refused, "strangers made room for others")
	eventually(t, "they hold all of theirs again", func() bool { return zmqgateway.Unfinished(g) == 32<<20 })
}

// While there is no room, a message waits its turn and nothing of it is lost. A
// message that has room, and still has time, is left alone.
func TestRoomIsWaitedFor(t *testing.T) {
	let := make(chan struct{})
	g := hurried(t, slowHub{let: let}, time.Minute, time.Minute, 2<<20, slog.New(slog.NewTextHandler(t.Output(), nil)))
	_, pull, rep := g.Addresses()
	// One is being published, which cannot be ended, and one is on its way.
	publishing, coming, last := dialSocket(t, pull, zmq4.Push), dialSocket(t, pull, zmq4.Push), dialSocket(t, pull, zmq4.Push)
	publishing.send(t, "a", "h", `"`+strings.Repeat("x", 500_000)+`"`)
	eventually(t, "it is there", func() bool { return zmqgateway.Unfinished(g) > 500_000 })
	_, err := coming.tcp.Write(append(frame(1, "a"), append(frame(1, "h"), announced(500_000)...)...))
	require.NoError(t, err)
	eventually(t, "it is announced", func() bool { return zmqgateway.Unfinished(g) > 1_000_000 })
	sent := make(chan error, 1)
	go func() {
		sent <- last.SendMsg(zmq4.NewMsgFrom([]byte("a"), []byte("h"), []byte(`"`+strings.Repeat("x", 1_000_000)+`"`)))
	}()
	// A small one does not wait for room.
	req := dialSocket(t, rep, zmq4.Req)
	req.send(t, "", "nonsense")
	require.Contains(t, req.next(t)[1], "bad_request")
	require.Less(t, zmqgateway.Unfinished(g), 1<<20)
	_, err = coming.tcp.Write(append([]byte(`"`), strings.Repeat("x", 499_998)+`"`...))
	require.NoError(t, err)
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
	g := hurried(t, slowHub{let: let}, time.Minute, 50*time.Millisecond, 2<<20, log.Logger())
	_, pull, _ := g.Addresses()
	publishing, slow, last := dialSocket(t, pull, zmq4.Push), dialSocket(t, pull, zmq4.Push), dialSocket(t, pull, zmq4.Push)
	body := `"` + strings.Repeat("x", 500_000) + `"`
	publishing.send(t, "a", "h", body)
	eventually(t, "it is there", func() bool { return zmqgateway.Unfinished(g) > 500_000 && zmqgateway.Arriving(g) == 0 })
	_, err := slow.tcp.Write(announced(500_000))
	require.NoError(t, err)
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
	hub := newHub(t, channels.Options{})
	const most = 8 << 20
	g := hurried(t, nobody(hub), time.Minute, time.Minute, most, slog.New(slog.NewTextHandler(t.Output(), nil)))
	_, pull, _ := g.Addresses()
	var all []*socket
	for range 100 {
		all = append(all, dialSocket(t, pull, zmq4.Push))
	}
	stacks := make([]byte, 4<<20)
	before := heap()
	for _, s := range all {
		_, err := s.tcp.Write(append(frame(1, "a"), announced(1<<20-1)...))
		require.NoError(t, err)
	}
	eventually(t, "there is no room", func() bool { return zmqgateway.Unfinished(g) == most/2 })
	eventually(t, "all others wait", func() bool {
		time.Sleep(100 * time.Millisecond) // each look stops all that runs
		return bytes.Count(stacks[:runtime.Stack(stacks, true)], []byte("(*room).take(")) == len(all)-most/2>>20
	})
	require.Less(t, heap()-before, int64(most/2+2<<20))
	closed := make(chan error, 1)
	go func() { closed <- g.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(patience):
		require.FailNow(t, "Close waits")
	}
	require.Zero(t, zmqgateway.Unfinished(g))
}

// A stranger that makes way ends at once, even while it waits for room.
func TestWhoWaitsForRoomMakesWay(t *testing.T) {
	g, err := zmqgateway.NewHurried(slowHub{}, zmqgateway.Options{Pull: "tcp://127.0.0.1:0", MaxConnections: 2, MaxUnfinishedBytes: 2 << 20,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}, time.Minute, time.Minute)
	require.NoError(t, err)
	defer g.Close()
	_, pull, _ := g.Addresses()
	waiting, holding := dialSocket(t, pull, zmq4.Push), dialSocket(t, pull, zmq4.Push)
	_, err = holding.tcp.Write(announced(1 << 20))
	require.NoError(t, err)
	eventually(t, "there is no room", func() bool { return zmqgateway.Unfinished(g) == 1<<20 })
	_, err = waiting.tcp.Write(announced(1 << 20))
	require.NoError(t, err)
	stacks := make([]byte, 4<<20)
	eventually(t, "it waits", func() bool {
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("(*room).take("))
	})
	dialSocket(t, pull, zmq4.Push)
	eventually(t, "it has ended", func() bool { return g.Stats().Refused == 1 })
	require.Equal(t, 1<<20, zmqgateway.Unfinished(g), "the other one has not")
}

// A message with a second large frame never waits for room while it holds some:
// two such messages would wait for each other.
func TestTwoLargeFrames(t *testing.T) {
	hub := newHub(t, channels.Options{})
	g := hurried(t, nobody(hub), time.Minute, time.Minute, 2<<20, slog.New(slog.NewTextHandler(t.Output(), nil)))
	_, _, rep := g.Addresses()
	large := strings.Repeat("x", 400_000)
	req := dialSocket(t, rep, zmq4.Req)
	req.send(t, "", large, large)
	require.Contains(t, req.next(t)[1], "bad_request")
	a, b := dialSocket(t, rep, zmq4.Req), dialSocket(t, rep, zmq4.Req)
	for _, s := range []*socket{a, b} {
		_, err := s.tcp.Write(append(append([]byte{3}, announced(len(large))[1:]...), large...))
		require.NoError(t, err)
	}
	eventually(t, "both hold their first frame", func() bool { return zmqgateway.Unfinished(g) > 2*len(large) })
	_, err := b.tcp.Write(announced(len(large)))
	require.NoError(t, err)
	requireHungUp(t, b.tcp)
	_, err = a.tcp.Write(append(announced(len(large)), large...))
	require.NoError(t, err)
	require.Contains(t, a.next(t)[0], "bad_request")
	require.EqualValues(t, 1, g.Stats().Refused)
}
