// Package hostile has clients that break the rules in numbers, or for long.
package hostile

import (
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The root's tests show that one client that breaks a rule is refused. Here such
// clients come in numbers, or go on for long, and the tests measure what they
// cost: memory, goroutines, and what other clients get.

// departures keeps for what reasons clients have left.
type departures struct {
	mu      sync.Mutex
	reasons []error
}

func (d *departures) hook(_ channels.Client, reason error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reasons = append(d.reasons, reason)
}

func (d *departures) wait(t *testing.T, n int) []error {
	t.Helper()
	var all []error
	basetest.Eventually(t, fmt.Sprint(n, " have left"), func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		all = d.reasons
		return len(all) >= n
	})
	require.Len(t, all, n)
	return all
}

// after closes clients, and waits until n have left in all.
func (d *departures) after(t *testing.T, n int, cs ...*hubtest.Conn) {
	t.Helper()
	for _, c := range cs {
		c.Close()
	}
	d.wait(t, n)
}

// wantRefused sends the beginning of a message, and then the same part until the
// server has closed the connection because the message is too long.
func wantRefused(c *hubtest.Conn, beginning, part string) {
	c.T.Helper()
	c.Send(beginning)
	var wg sync.WaitGroup
	wg.Go(func() {
		for err := error(nil); err == nil; {
			_, err = io.WriteString(c.C, part)
		}
	})
	c.WantClosed(1009)
	c.Close()
	wg.Wait()
}

// together runs f for each client at the same time.
func together(cs []*hubtest.Conn, f func(*hubtest.Conn)) {
	var wg sync.WaitGroup
	for _, c := range cs {
		wg.Go(func() { f(c) })
	}
	wg.Wait()
}

func TestHostileLengthsThatAreNotTrue(t *testing.T) {
	var gone departures
	s := hubtest.Serve(t, channels.Options{OnDisconnect: gone.hook})
	before := hubtest.Used()
	const n = 300
	cs := s.DialMany(n, "c", hubtest.DeflateOffer)
	for i, c := range cs {
		first := []byte{hubtest.RawText, hubtest.FinBit | hubtest.OpBinary, hubtest.FinBit | hubtest.RSV1Bit | hubtest.OpText}[i%3]
		c.Send(hubtest.FrameHeader(first, 0x80, 1<<62) + "mask" + `{"header"`)
	}
	s.PublishGo("c", "1") // each of them has been seen, since it is answered
	for _, c := range cs {
		require.Equal(t, "m", c.Message().Header)
	}
	before.Held(t, n*hubtest.PerClient)
	gone.after(t, n, cs...)
	before.Over(t)
}

// subscribe subscribes in Go. The returned function takes n messages, which
// must come, and ends the subscription.
func subscribe(t *testing.T, h *channels.Hub, channel string) (take func(n int)) {
	t.Helper()
	sub, err := h.Subscribe(t.Context(), channel, nil)
	require.NoError(t, err)
	return func(n int) {
		t.Helper()
		defer sub.Close()
		defer time.AfterFunc(basetest.Patience, sub.Close).Stop()
		for _, err := range sub.Messages() {
			require.NoError(t, err)
			if n--; n == 0 {
				return
			}
		}
		require.Zero(t, n, "so many have not come")
	}
}

// tight starts a server whose sockets soon fill if nobody reads.
func tight(t *testing.T, o channels.Options) *hubtest.Server {
	t.Helper()
	s := hubtest.New(t, o)
	s.SmallBuffers()
	s.HTTP.Start()
	return s
}

func TestHostileEndlessFragments(t *testing.T) {
	const n, limit = 10, 16 << 10
	var gone departures
	s := hubtest.Serve(t, channels.Options{MaxMessageBytes: limit, WriteTimeout: time.Minute, OnDisconnect: gone.hook}) // the clients read only at the end
	before := hubtest.Used()
	t.Run("of one byte", func(t *testing.T) {
		together(s.DialMany(n, "c"), func(c *hubtest.Conn) {
			wantRefused(c, hubtest.WSFrame(hubtest.OpText, "["), strings.Repeat(hubtest.WSFrame(0, "["), 1000))
		})
		gone.wait(t, n)
	})
	t.Run("almost as many as may be", func(t *testing.T) {
		cs := s.DialMany(n, "c")
		together(cs, func(c *hubtest.Conn) {
			c.Send(hubtest.WSFrame(hubtest.OpText, "[") + strings.Repeat(hubtest.WSFrame(0, hubtest.Long(500)), limit/500) + hubtest.WSFrame(hubtest.RawPing, "read"))
			f, err := c.Next()
			if err != nil || f.First != hubtest.RawPong {
				t.Errorf("%x, %v", f.First, err)
			}
		})
		before.Held(t, n*(hubtest.PerClient+4*limit)) // a buffer that grows has been twice as long
		gone.after(t, 2*n, cs...)
	})
	t.Run("empty", func(t *testing.T) { // never too long, so it may go on as long as it likes
		cs := s.DialMany(n, "c")
		together(cs, func(c *hubtest.Conn) {
			c.Send(hubtest.WSFrame(hubtest.OpText, ""))
			part := strings.Repeat(hubtest.WSFrame(0, ""), 1000)
			for range 50 {
				c.Send(part)
			}
			c.Send(hubtest.WSFrame(hubtest.FinBit, hubtest.Say("1")))
		})
		cs[0].WantAllOf(n)
		before.Held(t, n*hubtest.PerClient)
		gone.after(t, 3*n, cs...)
	})
	before.Over(t)
}

func TestHostilePingFlood(t *testing.T) {
	t.Run("from those who do not read", func(t *testing.T) {
		const n = 10
		var gone departures
		s := tight(t, channels.Options{WriteTimeout: time.Minute, OnDisconnect: gone.hook})
		before := hubtest.Used()
		take := subscribe(t, s.Hub, "c")
		cs := s.DialMany(n, "c")
		flood := strings.Repeat(hubtest.WSFrame(hubtest.RawPing, hubtest.Long(125)), 500)
		together(cs, func(c *hubtest.Conn) {
			for range 5 { // pongs of five times PerClient
				c.Send(flood)
			}
			c.Send(hubtest.WSFrame(hubtest.RawText, hubtest.Say("1")))
		})
		take(n) // all has been read
		before.Held(t, n*hubtest.PerClient)
		gone.after(t, n, cs...)
		before.Over(t)
	})
	// A pong must not be looked for in a long queue: each six bytes of the
	// client's would cost a walk through a hundred thousand frames.
	t.Run("behind a full queue", func(t *testing.T) {
		s := tight(t, channels.Options{WriteTimeout: time.Minute, QueueBytes: 4 << 20, Channel: func(string) channels.ChannelOptions {
			return channels.ChannelOptions{SlowSubscriber: channels.SlowDropOldest}
		}})
		c := s.DialMany(1, "c")[0]
		for s.Hub.Stats().Dropped == 0 {
			for range 1000 {
				s.PublishGo("c", "0")
			}
		}
		take := subscribe(t, s.Hub, "c")
		flood := strings.Repeat(hubtest.WSFrame(hubtest.RawPing, ""), 1000)
		for range 50 {
			c.Send(flood)
		}
		c.Send(hubtest.WSFrame(hubtest.RawText, hubtest.Say("1")))
		take(1)
		c.Close()
	})
}

// A few megabytes that inflate to gigabytes, or to nothing at all.
func TestHostileDeflateBombs(t *testing.T) {
	const n, limit = 10, 64 << 10
	var gone departures
	// Nobody is pinged: these clients do not read while they write.
	s := hubtest.Serve(t, channels.Options{MaxMessageBytes: limit, OnDisconnect: gone.hook, PingPeriod: 10 * time.Minute})
	zeros := hubtest.Deflated(string(make([]byte, 1<<20)), flate.BestCompression) + "\x00\x00\xff\xff" // a block that can be repeated
	require.Less(t, len(zeros), 1100)
	before := hubtest.Used()
	for name, op := range map[string]byte{"text": hubtest.OpText, "binary": hubtest.OpBinary} {
		t.Run(name, func(t *testing.T) {
			cs := s.DialMany(n, "c", hubtest.DeflateOffer)
			start := hubtest.Allocated()
			together(cs, func(c *hubtest.Conn) {
				header := hubtest.FrameHeader(hubtest.FinBit|hubtest.RSV1Bit|op, 0x80, uint64(4096*len(zeros))) // of 4 GiB
				wantRefused(c, header+"\x00\x00\x00\x00", zeros)                                                // a mask that changes nothing
			})
			require.Less(t, hubtest.Allocated()-start, uint64(n*(8<<20)), "in all, not only at the end")
		})
	}
	gone.wait(t, 2*n)
	t.Run("empty blocks", func(t *testing.T) {
		cs := s.DialMany(n, "c", hubtest.DeflateOffer)
		blocks := strings.Repeat("\x00\x00\x00\xff\xff", 10_000)
		together(cs, func(c *hubtest.Conn) {
			c.Send(hubtest.FrameHeader(hubtest.RSV1Bit|hubtest.OpText, 0x80, uint64(20*len(blocks))) + "\x00\x00\x00\x00")
			for range 20 {
				c.Send(blocks)
			}
			c.Send(hubtest.WSFrame(hubtest.FinBit, hubtest.Deflated(hubtest.Say("1"), flate.BestSpeed)))
		})
		cs[0].WantAllOf(n)
		before.Held(t, n*(hubtest.PerClient+64<<10)) // an inflater has a window of 32 KiB
		gone.after(t, 3*n, cs...)
	})
	before.Over(t)
}

// The handshake is the app's http.Server's: its ReadHeaderTimeout ends who
// sends a byte at a time, and the hub has never heard of them.
func TestHostileSlowHandshake(t *testing.T) {
	const n = 50
	s := hubtest.New(t, channels.Options{OnConnect: func(context.Context, channels.Client) error {
		t.Error("a connection")
		return nil
	}})
	s.HTTP.Config.ReadHeaderTimeout = 300 * time.Millisecond
	s.HTTP.Start()
	before := hubtest.Used()
	cs := make([]*hubtest.Conn, n)
	for i := range cs {
		cs[i] = s.DialRaw()
		cs[i].Send(strings.TrimSuffix(hubtest.UpgradeRequest("/channel/c/"), "\r\n") + "X-Slow: ")
	}
	together(cs, func(c *hubtest.Conn) {
		pace := time.NewTicker(5 * time.Millisecond) // far less than the timeout: each byte would extend one that looked at bytes
		defer pace.Stop()
		for {
			if _, err := c.C.Write([]byte("x")); err != nil {
				break
			}
			<-pace.C
		}
		c.Close()
	})
	require.Zero(t, s.Hub.Stats().Connects)
	before.Over(t)
}

// TestHostileSilence has clients that stop in all kinds of places, with the
// connection left open: to the server, as if they had vanished without a FIN.
// Those that only take their time stay, until they give no sign of life.
func TestHostileSilence(t *testing.T) {
	var gone departures
	// A busy machine may take a second to answer a ping.
	s := hubtest.Serve(t, channels.Options{PingPeriod: 3 * time.Second, OnDisconnect: gone.hook})
	before := hubtest.Used()
	const each = 20
	healthy := s.DialMany(1, "c")[0]
	var silent []*hubtest.Conn
	for _, last := range []string{
		"",     // idle
		"\x81", // in a frame's header
		hubtest.FrameHeader(hubtest.RawText, 0x80, 30000),                                // before the mask
		hubtest.FrameHeader(hubtest.RawText, 0x80, 30000) + "mask" + hubtest.Long(20000), // in a frame
		hubtest.WSFrame(hubtest.OpText, `{"header":`),                                    // between fragments
		hubtest.FrameHeader(hubtest.RawPing, 0x80, 100) + "mask" + hubtest.Long(99),      // in a control frame
	} {
		for _, c := range s.DialMany(each, "c") {
			c.Send(last)
			silent = append(silent, c)
		}
	}
	// One byte of a frame for each ping that comes. The frame could take
	// weeks; it costs what an idle connection costs.
	var wg sync.WaitGroup
	slow := s.DialMany(each, "c")
	slowest := `{"header":"m","body":"a byte at a time"}`
	for _, c := range slow {
		wg.Go(func() {
			frame := hubtest.WSFrame(hubtest.RawText, slowest)
			for pings := 0; pings < 4; {
				f, err := c.TryRead()
				if err != nil {
					t.Error("cut, but it was alive: ", err)
					return
				}
				if f.First == hubtest.RawPing {
					io.WriteString(c.C, frame[pings:pings+1])
					pings++
				}
			}
		})
	}
	silent = append(silent, slow...)
	var stays sync.WaitGroup
	stays.Go(func() {
		for {
			f, err := healthy.TryRead()
			if err != nil {
				t.Error("the healthy one: ", err)
				return
			}
			switch f.First {
			case hubtest.RawPing:
				io.WriteString(healthy.C, hubtest.WSFrame(hubtest.RawPong, string(f.Payload)))
			case hubtest.RawText:
				return
			}
		}
	})
	before.Held(t, len(silent)*hubtest.PerClient)
	wg.Wait()
	for _, err := range gone.wait(t, len(silent)) {
		require.Error(t, err)
	}
	s.PublishGo("c", "1")
	stays.Wait()
	gone.after(t, len(silent)+1, append(silent, healthy)...)
	before.Over(t)
}

// TestHostileConnects makes 1,000 connections, and cuts half of them during the
// handshake. The hub keeps nothing of those.
func TestHostileConnects(t *testing.T) {
	const n, atOnce = 1000, 50
	var came atomic.Int64
	var gone departures
	s := hubtest.Serve(t, channels.Options{
		Channel:      func(string) channels.ChannelOptions { return channels.ChannelOptions{Presence: channels.PresenceList} },
		OnConnect:    func(context.Context, channels.Client) error { came.Add(1); return nil },
		OnDisconnect: gone.hook,
	})
	before := hubtest.Used()
	request := hubtest.UpgradeRequest("/channel/p/", hubtest.DeflateOffer)
	stay := make(chan *hubtest.Conn, n)
	var wg sync.WaitGroup
	for i := range atOnce {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		wg.Go(func() {
			for j := range n / atOnce {
				c := s.DialRaw()
				if j%2 == 0 {
					c.Upgrade("/channel/p/", hubtest.DeflateOffer)
					stay <- c
					continue
				}
				c.Send(request[:random.IntN(len(request)+1)])
				if random.IntN(2) == 0 {
					c.C.(*net.TCPConn).SetLinger(0) // a reset
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	close(stay)
	basetest.Eventually(t, "only those who stayed are left", func() bool {
		return s.Hub.Stats().Connections == n/2
	})
	members, err := s.Hub.Presence(t.Context(), "p", 0)
	require.NoError(t, err)
	require.Equal(t, n/2, members.Total)
	before.Held(t, n*hubtest.PerClient)
	for c := range stay {
		c.Close()
	}
	basetest.Eventually(t, "all have left", func() bool { return s.Hub.Stats().Connections == 0 })
	members, err = s.Hub.Presence(t.Context(), "p", 0)
	require.NoError(t, err)
	require.Zero(t, members.Total)
	before.Over(t)
	require.GreaterOrEqual(t, came.Load(), int64(n/2))
	gone.wait(t, int(came.Load()))
}

// TestHostileReadersThatStopInsideOfAFrame take half of a long message and no
// more. They are cut; who reads has everything.
func TestHostileReadersThatStopInsideOfAFrame(t *testing.T) {
	const n, messages, size = 20, 40, 60 << 10
	var gone departures
	s := tight(t, channels.Options{
		WriteTimeout: 300 * time.Millisecond, MaxMessageBytes: 64 << 10, QueueBytes: 256 << 10, CompressBytes: -1, OnDisconnect: gone.hook,
	})
	before := hubtest.Used()
	cs := make([]*hubtest.Conn, n)
	for i := range cs {
		cs[i] = s.DialRaw()
		cs[i].C.(*net.TCPConn).SetReadBuffer(8 << 10)
		cs[i].Upgrade("/channel/c/")
	}
	healthy := s.DialMany(1, "c")[0]
	body := `"` + hubtest.Long(size) + `"`
	for i := range messages {
		s.PublishGo("c", body)
		require.Equal(t, body, string(healthy.Message().Body))
		if i == 0 {
			for _, c := range cs {
				_, err := io.ReadFull(c.BR, make([]byte, size/2))
				require.NoError(t, err)
			}
		}
	}
	for _, err := range gone.wait(t, n) {
		require.True(t, errors.Is(err, channels.ErrSlowSubscriber) || errors.Is(err, os.ErrDeadlineExceeded), "%v", err)
	}
	before.Left(t, (n+1)*hubtest.PerClient)
	gone.after(t, n+1, append(cs, healthy)...)
	before.Over(t)
}
