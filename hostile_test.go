package channels_test

import (
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// What these clients may not do is bounded by what TestProtocolViolations…
// and TestOversized show of single ones. Here they come in numbers, or do it
// for long, and the question is what they cost: memory, goroutines, and the
// others' service.

// usage is what the process holds: live heap, and goroutines.
type usage struct {
	heap       uint64
	goroutines int
}

func used() usage {
	runtime.GC()
	runtime.GC() // the first one only sets the pools' buffers aside
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{m.HeapAlloc, runtime.NumGoroutine()}
}

// held wants no more live heap than before and this much.
func (before usage) held(t *testing.T, more int) {
	t.Helper()
	now := used().heap
	require.LessOrEqual(t, now, before.heap+uint64(more), "the heap has grown by %d KiB", (int64(now)-int64(before.heap))>>10)
}

// over wants everything back, but for a little that pools keep.
func (before usage) over(t *testing.T) {
	t.Helper()
	until(t, "the goroutines have ended", func() bool { return runtime.NumGoroutine() <= before.goroutines })
	before.held(t, 4<<20)
}

// allocated is how much was ever allocated: what a short peak cannot hide.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// perClient is what one hostile client may cost, the test's own side
// included, beside what it has sent.
const perClient = 64 << 10

// departures counts who has left, and why.
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
	until(t, fmt.Sprint(n, " have left"), func() bool { d.mu.Lock(); defer d.mu.Unlock(); return len(d.reasons) >= n })
	d.mu.Lock()
	defer d.mu.Unlock()
	require.Len(t, d.reasons, n)
	return d.reasons
}

// hostile opens n connections to a channel.
func (s *server) hostile(n int, channel string, header ...string) []tcpClient {
	s.t.Helper()
	cs := make([]tcpClient, n)
	for i := range cs {
		cs[i] = s.dialRaw()
		cs[i].upgrade("/channel/"+channel+"/", header...)
	}
	return cs
}

// untilRefused writes the same again until the server has closed.
func (c tcpClient) untilRefused(text string) {
	for {
		if _, err := io.WriteString(c.c, text); err != nil {
			return
		}
	}
}

// wantAllOf wants n messages "1", past the answer to its own.
func (c tcpClient) wantAllOf(n int) {
	c.t.Helper()
	for n > 0 {
		if m := c.message(); m.Header == "m" {
			require.Equal(c.t, "1", string(m.Body))
			n--
		}
	}
}

// together runs f for each client at the same time.
func together(cs []tcpClient, f func(tcpClient)) {
	var wg sync.WaitGroup
	for _, c := range cs {
		wg.Go(func() { f(c) })
	}
	wg.Wait()
}

func TestHostileLengthsThatAreNotTrue(t *testing.T) {
	var gone departures
	s := serve(t, channels.Options{OnDisconnect: gone.hook})
	before := used()
	const n = 300
	cs := s.hostile(n, "c", deflateOffer)
	for i, c := range cs {
		first := []byte{rawText, finBit | opBinary, finBit | rsv1Bit | opText}[i%3]
		c.write(frameHeader(first, 0x80, 1<<62) + "mask" + `{"header"`)
	}
	s.publishGo("c", "1") // each of them has been seen, since it is answered
	for _, c := range cs {
		require.Equal(t, "m", c.message().Header)
	}
	before.held(t, n*perClient)
	for _, c := range cs {
		c.close()
	}
	gone.wait(t, n)
	before.over(t)
}

// wait waits until a subscriber has so many messages.
func (s *subscriber) wait(t *testing.T, n int) {
	t.Helper()
	until(t, fmt.Sprint(n, " messages"), func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.got) >= n })
}

// publishGo publishes from Go, which leaves no connection behind.
func (s *server) publishGo(channel, body string) {
	s.t.Helper()
	_, err := s.hub.Publish(s.t.Context(), channel, msg("m", body))
	require.NoError(s.t, err)
}

func TestHostileEndlessFragments(t *testing.T) {
	const n, limit = 10, 16 << 10
	var gone departures
	s := serve(t, channels.Options{MaxMessageBytes: limit, OnDisconnect: gone.hook})
	before := used()
	t.Run("of one byte", func(t *testing.T) {
		together(s.hostile(n, "c"), func(c tcpClient) {
			c.write(wsFrame(opText, "["))
			part := strings.Repeat(wsFrame(0, "["), 1000)
			var wg sync.WaitGroup
			wg.Go(func() { c.untilRefused(part) })
			c.wantClosed(1009)
			c.close()
			wg.Wait()
		})
		gone.wait(t, n)
	})
	t.Run("almost as many as may be", func(t *testing.T) {
		cs := s.hostile(n, "c")
		together(cs, func(c tcpClient) {
			c.write(wsFrame(opText, "[") + strings.Repeat(wsFrame(0, long(500)), limit/500) + wsFrame(rawPing, "read"))
			f, err := c.next()
			if err != nil || f.first != rawPong {
				t.Errorf("%x, %v", f.first, err)
			}
		})
		before.held(t, n*(perClient+4*limit)) // a buffer that grows has been twice as long
		for _, c := range cs {
			c.close()
		}
		gone.wait(t, 2*n)
	})
	t.Run("empty", func(t *testing.T) { // never too long, so it may go on as long as it likes
		cs := s.hostile(n, "c")
		together(cs, func(c tcpClient) {
			c.write(wsFrame(opText, ""))
			part := strings.Repeat(wsFrame(0, ""), 1000)
			for range 50 {
				c.write(part)
			}
			c.write(wsFrame(finBit, say("1")))
		})
		cs[0].wantAllOf(n)
		before.held(t, n*perClient)
		for _, c := range cs {
			c.close()
		}
		gone.wait(t, 3*n)
	})
	before.over(t)
}

func TestHostilePingFlood(t *testing.T) {
	t.Run("from those who do not read", func(t *testing.T) {
		const n = 10
		var gone departures
		s := newServer(t, channels.Options{WriteTimeout: time.Minute, OnDisconnect: gone.hook})
		s.smallBuffers()
		s.http.Start()
		before := used()
		sub := subscribe(t, s.hub, "c", nil)
		cs := s.hostile(n, "c")
		flood := strings.Repeat(wsFrame(rawPing, long(125)), 500)
		together(cs, func(c tcpClient) {
			for range 20 {
				c.write(flood)
			}
			c.write(text("1"))
		})
		sub.wait(t, n) // all has been read
		before.held(t, n*perClient)
		for _, c := range cs {
			c.close()
		}
		gone.wait(t, n)
		sub.close()
		before.over(t)
	})
	// A pong must not be looked for in a long queue: each six bytes of the
	// client's would cost a walk through a hundred thousand frames.
	t.Run("behind a full queue", func(t *testing.T) {
		s := newServer(t, channels.Options{WriteTimeout: time.Minute, QueueBytes: 4 << 20, Channel: func(string) channels.ChannelOptions {
			return channels.ChannelOptions{SlowSubscriber: channels.SlowDropOldest}
		}})
		s.smallBuffers()
		s.http.Start()
		c := s.hostile(1, "c")[0]
		for s.hub.Stats().Dropped == 0 {
			for range 1000 {
				s.publishGo("c", "0")
			}
		}
		sub := subscribe(t, s.hub, "c", nil)
		flood := strings.Repeat(wsFrame(rawPing, ""), 1000)
		for range 50 {
			c.write(flood)
		}
		c.write(text("1"))
		sub.wait(t, 1)
		sub.close()
		c.close()
	})
}

// A few megabytes that inflate to gigabytes, or to nothing at all.
func TestHostileDeflateBombs(t *testing.T) {
	const n, limit = 10, 64 << 10
	var gone departures
	s := serve(t, channels.Options{MaxMessageBytes: limit, OnDisconnect: gone.hook})
	zeros := deflated(string(make([]byte, 1<<20)), flate.BestCompression) + "\x00\x00\xff\xff" // a block that can be repeated
	require.Less(t, len(zeros), 1100)
	before := used()
	for name, op := range map[string]byte{"text": opText, "binary": opBinary} {
		t.Run(name, func(t *testing.T) {
			cs := s.hostile(n, "c", deflateOffer)
			start := allocated()
			together(cs, func(c tcpClient) {
				var wg sync.WaitGroup
				wg.Go(func() {
					io.WriteString(c.c, frameHeader(finBit|rsv1Bit|op, 0x80, uint64(4096*len(zeros)))+"\x00\x00\x00\x00") // a mask that changes nothing
					for range 4096 {                                                                                      // 4 GiB
						if _, err := io.WriteString(c.c, zeros); err != nil {
							return
						}
					}
				})
				c.wantClosed(1009)
				c.close()
				wg.Wait()
			})
			require.Less(t, allocated()-start, uint64(n*(8<<20)), "in all, not only at the end")
		})
	}
	gone.wait(t, 2*n)
	t.Run("empty blocks", func(t *testing.T) {
		cs := s.hostile(n, "c", deflateOffer)
		blocks := strings.Repeat("\x00\x00\x00\xff\xff", 10_000)
		together(cs, func(c tcpClient) {
			c.write(frameHeader(rsv1Bit|opText, 0x80, uint64(20*len(blocks))) + "\x00\x00\x00\x00")
			for range 20 {
				c.write(blocks)
			}
			c.write(wsFrame(finBit, deflated(say("1"), flate.BestSpeed)))
		})
		cs[0].wantAllOf(n)
		before.held(t, n*(perClient+64<<10)) // an inflater has a window of 32 KiB
		for _, c := range cs {
			c.close()
		}
		gone.wait(t, 3*n)
	})
	before.over(t)
}

// The handshake is the app's http.Server's: its ReadHeaderTimeout ends who
// sends a byte at a time, and the hub has never heard of them.
func TestHostileSlowHandshake(t *testing.T) {
	const n = 50
	s := newServer(t, channels.Options{OnConnect: func(context.Context, channels.Client) error {
		t.Error("a connection")
		return nil
	}})
	s.http.Config.ReadHeaderTimeout = 300 * time.Millisecond
	s.http.Start()
	before := used()
	cs := make([]tcpClient, n)
	for i := range cs {
		cs[i] = s.dialRaw()
		cs[i].write(strings.TrimSuffix(upgradeRequest("/channel/c/"), "\r\n") + "X-Slow: ")
	}
	together(cs, func(c tcpClient) {
		pace := time.NewTicker(5 * time.Millisecond) // far less than the timeout: each byte would extend one that looked at bytes
		defer pace.Stop()
		for {
			if _, err := c.c.Write([]byte("x")); err != nil {
				break
			}
			<-pace.C
		}
		c.close()
	})
	require.Zero(t, s.hub.Stats().Connects)
	before.over(t)
}

// TestHostileSilence has clients that stop in all kinds of places, with the
// connection left open: to the server, as if they had vanished without a FIN.
// Those that only take their time stay, until they give no sign of life.
func TestHostileSilence(t *testing.T) {
	var gone departures
	s := serve(t, channels.Options{PingPeriod: time.Second, OnDisconnect: gone.hook})
	before := used()
	const each = 20
	healthy := s.hostile(1, "c")[0]
	var silent []tcpClient
	for _, last := range []string{
		"",                                // idle
		"\x81",                            // in a frame's header
		frameHeader(rawText, 0x80, 30000), // before the mask
		frameHeader(rawText, 0x80, 30000) + "mask" + long(20000), // in a frame
		wsFrame(opText, `{"header":`),                            // between fragments
		frameHeader(rawPing, 0x80, 100) + "mask" + long(99),      // in a control frame
	} {
		for _, c := range s.hostile(each, "c") {
			c.write(last)
			silent = append(silent, c)
		}
	}
	// One byte of a frame for each ping that comes. The frame could take
	// weeks; it costs what an idle connection costs.
	var wg sync.WaitGroup
	slow := s.hostile(each, "c")
	slowest := `{"header":"m","body":"a byte at a time"}`
	for _, c := range slow {
		wg.Go(func() {
			frame := wsFrame(rawText, slowest)
			for pings := 0; pings < 4; {
				f, err := c.tryRead()
				if err != nil {
					t.Error("cut, but it was alive: ", err)
					return
				}
				if f.first == rawPing {
					io.WriteString(c.c, frame[pings:pings+1])
					pings++
				}
			}
		})
	}
	silent = append(silent, slow...)
	var stays sync.WaitGroup
	stays.Go(func() {
		for {
			f, err := healthy.tryRead()
			if err != nil {
				t.Error("the healthy one: ", err)
				return
			}
			switch f.first {
			case rawPing:
				io.WriteString(healthy.c, wsFrame(rawPong, string(f.payload)))
			case rawText:
				return
			}
		}
	})
	before.held(t, len(silent)*perClient)
	wg.Wait()
	for _, err := range gone.wait(t, len(silent)) {
		require.Error(t, err)
	}
	s.publishGo("c", "1")
	stays.Wait()
	for _, c := range append(silent, healthy) {
		c.close()
	}
	gone.wait(t, len(silent)+1)
	before.over(t)
}

// TestHostileConnects: 1,000 connects, half of them cut at some moment of the
// handshake. Nobody who was cut is left anywhere.
func TestHostileConnects(t *testing.T) {
	const n, atOnce = 1000, 50
	var came atomic.Int64
	var gone departures
	s := serve(t, channels.Options{
		Channel:      keeps,
		OnConnect:    func(context.Context, channels.Client) error { came.Add(1); return nil },
		OnDisconnect: gone.hook,
	})
	before := used()
	request := upgradeRequest("/channel/p/", deflateOffer)
	stay := make(chan tcpClient, n)
	var wg sync.WaitGroup
	for i := range atOnce {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		wg.Go(func() {
			for j := range n / atOnce {
				c := s.dialRaw()
				if j%2 == 0 {
					c.upgrade("/channel/p/", deflateOffer)
					stay <- c
					continue
				}
				c.write(request[:random.IntN(len(request)+1)])
				if random.IntN(2) == 0 {
					c.c.(*net.TCPConn).SetLinger(0) // a reset
				}
				c.close()
			}
		})
	}
	wg.Wait()
	close(stay)
	until(t, "only those who stayed are left", func() bool {
		return s.hub.Stats().Connections == n/2
	})
	members, err := s.hub.Presence(t.Context(), "p", 0)
	require.NoError(t, err)
	require.Equal(t, n/2, members.Total)
	before.held(t, n*perClient)
	for c := range stay {
		c.close()
	}
	until(t, "all have left", func() bool { return s.hub.Stats().Connections == 0 })
	members, err = s.hub.Presence(t.Context(), "p", 0)
	require.NoError(t, err)
	require.Zero(t, members.Total)
	before.over(t)
	require.GreaterOrEqual(t, came.Load(), int64(n/2))
	gone.wait(t, int(came.Load()))
}

// TestHostileReadersThatStopInsideOfAFrame take half of a long message and no
// more. They are cut; who reads has everything.
func TestHostileReadersThatStopInsideOfAFrame(t *testing.T) {
	const n, messages, size = 20, 40, 60 << 10
	var gone departures
	s := newServer(t, channels.Options{
		WriteTimeout: 300 * time.Millisecond, MaxMessageBytes: 64 << 10, QueueBytes: 256 << 10, CompressBytes: -1, OnDisconnect: gone.hook,
	})
	s.smallBuffers()
	s.http.Start()
	before := used()
	cs := make([]tcpClient, n)
	for i := range cs {
		cs[i] = s.dialRaw()
		cs[i].c.(*net.TCPConn).SetReadBuffer(8 << 10)
		cs[i].upgrade("/channel/c/")
	}
	healthy := s.dialRaw()
	healthy.upgrade("/channel/c/")
	body := `"` + long(size) + `"`
	for i := range messages {
		s.publishGo("c", body)
		require.Equal(t, body, string(healthy.message().Body))
		if i == 0 {
			for _, c := range cs {
				_, err := io.ReadFull(c.br, make([]byte, size/2))
				require.NoError(t, err)
			}
		}
	}
	for _, err := range gone.wait(t, n) {
		require.True(t, errors.Is(err, channels.ErrSlowSubscriber) || errors.Is(err, os.ErrDeadlineExceeded), "%v", err)
	}
	before.held(t, (n+1)*perClient)
	for _, c := range cs {
		c.close()
	}
	healthy.close()
	gone.wait(t, n+1)
	before.over(t)
}
