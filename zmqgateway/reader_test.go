package zmqgateway_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
	"github.com/channels-go/channels/zmqgateway"
)

// A reader that stops reading loses messages, and then its connection. Other
// readers lose nothing and do not wait, nor does the hub.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	hub, g := start(t, func(o *setup) { o.QueueBytes = 1 << 20 })
	subscribe(t, hub, g, "", "a") // it reads nothing more
	fast := subscribe(t, hub, g, "a", "a")
	body := `"` + strings.Repeat("x", 100_000) + `"`
	for i := range 200 { // 20 MB
		publish(t, hub, "a", fmt.Sprint(i), body)
		require.Equal(t, []string{"a\x00", fmt.Sprint(i), body}, fast.next(t))
	}
	require.Positive(t, g.Stats().Dropped)
	eventually(t, "the slow one is gone", func() bool { return g.Stats().Readers == 1 })
	publish(t, hub, "a", "after", "1")
	require.Equal(t, "after", fast.next(t)[1])
}

// A SUB socket that takes 150 KB/s is not disconnected, and loses nothing that its
// queue holds.
func TestSlowButSteadyReader(t *testing.T) {
	t.Parallel()
	// On a busy machine, the reader itself may not be steady. Then it is tried again.
	eventually(t, "a steady reader gets everything", func() bool {
		longest, err := readsSteadily(t)
		if err != nil {
			require.Greater(t, longest, zmtp.StallTimeout/3, err)
			t.Logf("the reader took nothing for %v: %v", longest, err)
		}
		return err == nil
	})
}

// readsSteadily returns the longest time in which the reader took nothing, and an
// error that says what it did not get.
func readsSteadily(t *testing.T) (longest time.Duration, err error) {
	const messages, size = 220, 30 << 10 // 6.6 MB
	const slow = 30                      // messages, for twice zmtp.StallTimeout
	hub := newHub(t, channels.Options{QueueBytes: 16 << 20})
	g := newGateway(t, nobody(hub))
	s := dialSub(t, g)
	require.NoError(t, s.tcp.(*net.TCPConn).SetReadBuffer(64<<10))
	s.send(t, "\x01steady\x00")
	s.ready(t, hub, "steady")
	body := `"` + strings.Repeat("b", size) + `"`
	last := time.Now()
	for i := range messages {
		publish(t, hub, "steady", fmt.Sprint(i), body)
	}
	pace := time.NewTicker(200 * time.Millisecond)
	defer pace.Stop()
	for i := range messages {
		if i < slow {
			<-pace.C
		}
		s.tcp.SetDeadline(time.Now().Add(patience))
		m, err := s.RecvMsg()
		longest = max(longest, time.Since(last))
		last = time.Now()
		if err != nil {
			return longest, err
		}
		if got := string(m.Frames[1]); got != fmt.Sprint(i) {
			return longest, fmt.Errorf("%s came after %d", got, i-1)
		}
	}
	if n := g.Stats().Dropped; n > 0 {
		return longest, fmt.Errorf("%d were dropped", n)
	}
	return longest, nil
}

// A reader that asks for a channel by its name and by two beginnings gets each
// message once, and goes on getting them by what it has not cancelled.
func TestReaderGetsEachMessageOnce(t *testing.T) {
	hub, g := start(t)
	s := dialSub(t, g)
	expect := func(headers ...string) {
		t.Helper()
		for _, h := range headers {
			require.Equal(t, h, s.next(t)[1])
		}
	}
	s.send(t, "\x01keep.a\x00")
	s.ready(t, hub, "keep.a")
	s.send(t, "\x01keep")
	s.ready(t, hub, "keep.b")
	s.send(t, "\x01")
	s.send(t, "\x01") // repeated: one "leave" ends both
	s.ready(t, hub, "z")
	for i := range 3 {
		publish(t, hub, "keep.a", fmt.Sprint("m", i), "1")
	}
	expect("m0", "m1", "m2")
	publish(t, hub, "keep.b", "b", "1")
	publish(t, hub, "z", "z", "1")
	expect("b", "z")
	s.send(t, "\x00keep.a\x00")
	eventually(t, "the hub has no subscriber", func() bool {
		c, err := hub.Channel(t.Context(), "keep.a")
		return err == nil && c.Subscribers == 0
	})
	publish(t, hub, "keep.a", "by beginning", "1")
	expect("by beginning")
	s.send(t, "\x00")
	s.send(t, "\x00keep")
	s.send(t, "\x01z\x00")
	eventually(t, "all that was asked is done", func() bool {
		c, err := hub.Channel(t.Context(), "z")
		return err == nil && c.Subscribers == 1
	})
	publish(t, hub, "keep.a", "for nobody", "1")
	publish(t, hub, "z", "end", "1")
	expect("end")
}

// A reader of ZMTP 3.1 gets PINGs that say how long the gateway may be silent. If
// it answers, it stays, though it says nothing else; if not, it is disconnected.
func TestReaderAnswersPings(t *testing.T) {
	_, g := start(t)
	synctest.Test(t, func(t *testing.T) {
		c, served := handle(g, "SUB")
		hello := shaken("SUB")
		hello[11] = 1     // ZMTP 3.1
		go c.Write(hello) // ends when that is read
		_, err := io.ReadFull(c, make([]byte, 64))
		require.NoError(t, err)
		_, err = readFrame(c) // READY
		require.NoError(t, err)
		began := time.Now()
		ping := frame(4, "\x04PING\x03\x84") // 90 s
		for range 2 * zmqgateway.SilentBeats {
			f, err := readFrame(c)
			require.NoError(t, err)
			require.Equal(t, ping, f)
			write(t, c, frame(4, "\x04PONG"))
		}
		require.Equal(t, 2*zmqgateway.SilentBeats*zmqgateway.Beat, time.Since(began))
		require.Equal(t, 1, g.Stats().Readers)
		pings := 0
		f, err := readFrame(c)
		for ; err == nil; f, err = readFrame(c) {
			require.Equal(t, ping, f)
			pings++
		}
		require.GreaterOrEqual(t, pings, zmqgateway.SilentBeats-1)
		require.Equal(t, 3*zmqgateway.SilentBeats*zmqgateway.Beat, time.Since(began))
		require.NoError(t, <-served)
	})
	require.Zero(t, g.Stats().Readers)
}

// A reader of everything at one replica gets what others publish, also on
// channels that its replica has never heard of, once each.
func TestReaderOfAllReplicas(t *testing.T) {
	t.Parallel()
	a, b := newMesh(t, "a", nil), newMesh(t, "b", nil)
	one := newHub(t, channels.Options{Mesh: a, Store: hubtest.NewMemory(t)})
	two := newHub(t, channels.Options{Mesh: b, Store: hubtest.NewMemory(t)})
	a.SetPeers(map[string]string{"b": b.Address()})
	b.SetPeers(map[string]string{"a": a.Address()})
	s := subscribe(t, two, newGateway(t, nobody(one)), "", "x")
	sub, err := one.Subscribe(t.Context(), "x", nil)
	require.NoError(t, err)
	defer sub.Close()
	for i := range 10 {
		publish(t, two, "x", fmt.Sprint("x", i), "1")
		require.Equal(t, fmt.Sprint("x", i), s.next(t)[1])
		publish(t, two, fmt.Sprint("y", i), "y", "1")
		require.Equal(t, []string{fmt.Sprint("y", i, "\x00"), "y", "1"}, s.next(t))
		publish(t, one, "x", "own", "1")
		require.Equal(t, "own", s.next(t)[1])
	}
}

// queueMore publishes 150 messages, more than the system takes, to a reader that
// takes a few of them meanwhile, and returns how many. One that takes nothing would be
// cut after zmtp.StallTimeout, and a busy machine may need longer to publish them.
func (s *socket) queueMore(t *testing.T, hub *channels.Hub) (taken int) {
	t.Helper()
	for i := range 150 {
		publish(t, hub, "a", fmt.Sprint(i), `"`+strings.Repeat("x", 50_000)+`"`)
		if i%10 == 9 {
			require.Equal(t, fmt.Sprint(taken), s.next(t)[1])
			taken++
		}
	}
	return taken
}

// Close sends what is queued, even to a reader that takes its time.
func TestCloseSendsWhatIsQueued(t *testing.T) {
	hub, g := start(t, func(o *setup) { o.Linger = patience }) // a busy machine needs more than a second
	s := dialSub(t, g)
	require.NoError(t, s.tcp.(*net.TCPConn).SetReadBuffer(32<<10)) // the system keeps less than all of it
	s.send(t, "\x01")
	s.ready(t, hub, "a")
	taken := s.queueMore(t, hub)
	closed := make(chan error, 1)
	go func() { closed <- g.Close() }()
	for i := taken; i < 150; i++ {
		require.Equal(t, fmt.Sprint(i), s.next(t)[1])
	}
	require.NoError(t, <-closed)
	_, err := s.RecvMsg()
	require.ErrorIs(t, err, io.EOF)
}

// A reader that takes nothing holds Close up for as long as the gateway lingers, and
// no longer.
func TestCloseWaitsForReadersOnlySoLong(t *testing.T) {
	var log logbook
	hub, g := start(t, withLog(&log))
	s := dialSub(t, g)
	require.NoError(t, s.tcp.(*net.TCPConn).SetReadBuffer(8<<10))
	s.send(t, "\x01")
	s.ready(t, hub, "a")
	s.queueMore(t, hub)
	began := time.Now()
	zmtptest.RequireCloses(t, g)
	require.GreaterOrEqual(t, time.Since(began), time.Second, "it did not linger")
	require.Contains(t, log.Line("closed before all readers"), "readers=1")
}

// A reader that takes all topics there are, again and again, keeps out nobody who
// wants no more than an equal share.
func TestGreedyReader(t *testing.T) {
	var log logbook
	hub, g := start(t, withLog(&log), func(o *setup) { o.MaxTopics, o.MaxConnections = 9, 3 })
	greedy := func(n int) *socket {
		t.Helper()
		s := dialSub(t, g)
		var all []byte
		for i := range n {
			all = append(all, frame(0, fmt.Sprintf("\x01greedy%d\x00", i))...)
		}
		write(t, s.tcp, all) // at once, because it may be disconnected before everything is sent
		return s
	}
	refused := int64(0)
	requireEnded := func(s *socket) {
		t.Helper()
		requireHungUp(t, s.tcp)
		refused++
		eventually(t, "it is counted, and nobody else", func() bool { return g.Stats().Refused == refused })
	}
	first := greedy(9)
	first.ready(t, hub, "greedy8")
	var honest []*socket
	for _, name := range []string{"a", "b"} {
		s := dialSub(t, g)
		honest = append(honest, s)
		s.send(t, "\x01"+name+"1\x00")
		s.send(t, "\x01"+name)
		s.ready(t, hub, name+"1")
	}
	requireEnded(first)
	for range 20 {
		requireEnded(greedy(100))
	}
	last := greedy(5) // what is left
	last.ready(t, hub, "greedy4")
	honest[0].send(t, "\x01a3")
	requireEnded(last)
	for i, name := range []string{"a", "b"} {
		publish(t, hub, name+"1", "still", "1")
		require.Equal(t, "still", honest[i].next(t)[1])
	}
	// A reader that would have as many as the one with the most does not end it.
	last = greedy(4)
	last.ready(t, hub, "greedy3")
	honest[0].send(t, "\x01a4")
	requireEnded(honest[0])
	publish(t, hub, "greedy3", "still", "1")
	require.Equal(t, "still", last.next(t)[1])
	eventually(t, "it is logged", func() bool { return log.Has("MaxTopics") })
}
