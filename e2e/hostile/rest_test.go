package hostile

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

// Where there is a poller, an idle connection rests, and bytes wake it. Here clients wake
// theirs in numbers, or in the moment in which they end.

// resting is how many goroutines n idle connections have.
func resting(n int) int {
	if runtime.GOOS == "linux" && os.Getenv("CHANNELS_POLLER") != "off" {
		return 0
	}
	return n
}

// wantPong reads up to the pong with a payload.
func wantPong(c *hubtest.Conn, payload string) {
	for {
		switch f, err := c.TryRead(); {
		case err != nil:
			c.T.Errorf("no pong %s: %v", payload, err)
			return
		case f.First == hubtest.RawPong:
			if string(f.Payload) != payload {
				c.T.Errorf("a pong %q, and not %s", f.Payload, payload)
			}
			return
		}
	}
}

// All clients send a part of a frame in one moment, and the rest of it in another. The
// first takes a goroutine and a reader each, and the second gives them back.
func TestHostileWakesAtOnce(t *testing.T) {
	const n = 400
	var gone departures
	s := hubtest.Serve(t, channels.Options{OnDisconnect: gone.hook})
	before := hubtest.Used()
	cs := s.DialMany(n, "c")
	rest := func() {
		t.Helper()
		const own = 1 // the poller
		basetest.Eventually(t, "all rest", func() bool { return runtime.NumGoroutine() <= before.Goroutines+own+resting(n) })
	}
	rest()
	for name, frame := range map[string]func(i int) string{
		"pings": func(i int) string { return hubtest.WSFrame(hubtest.RawPing, fmt.Sprint("n", i)) },
		"messages": func(i int) string {
			return hubtest.WSFrame(hubtest.RawText, fmt.Sprintf(`{"header":"ping","body":1,"id":%d}`, i))
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, at := range []int{1, 2, 6, 7} { // in the header, before the mask, behind it, in the payload
				for _, part := range []func(string) string{
					func(f string) string { return f[:at] },
					func(f string) string { return f[at:] },
				} {
					for i, c := range cs {
						c.Send(part(frame(i)))
					}
					before.Held(t, n*hubtest.PerClient)
				}
				for i, c := range cs {
					if name == "pings" {
						wantPong(c, fmt.Sprint("n", i))
					} else {
						f, err := c.Next()
						require.NoError(t, err)
						require.Contains(t, string(f.Payload), fmt.Sprintf(`"id":%d`, i))
					}
				}
			}
		})
		rest()
	}
	gone.after(t, n, cs...)
	before.Over(t)
}

// The hub tells all clients to go in the moment in which they send something, or leave:
// each of them has left in the end, and once.
func TestHostileEndsAtRest(t *testing.T) {
	const each = 50
	var gone departures
	s := hubtest.Serve(t, channels.Options{DrainTime: -1, OnDisconnect: gone.hook})
	before := hubtest.Used()
	half := hubtest.WSFrame(hubtest.RawText, hubtest.Say("1"))
	acts := []func(*hubtest.Conn){
		func(*hubtest.Conn) {}, // it answers no close frame, either
		func(c *hubtest.Conn) { io.WriteString(c.C, "\x89") },
		func(c *hubtest.Conn) { io.WriteString(c.C, half[:len(half)/2]) },
		func(c *hubtest.Conn) { io.WriteString(c.C, hubtest.WSFrame(hubtest.RawPing, "x")) },
		func(c *hubtest.Conn) { io.WriteString(c.C, half) },
		func(c *hubtest.Conn) { io.WriteString(c.C, hubtest.WSFrame(hubtest.RawClose, "\x03\xe8")) },
		func(c *hubtest.Conn) { c.CloseWrite() },
		func(c *hubtest.Conn) { c.Close() },
		func(c *hubtest.Conn) { c.C.(*net.TCPConn).SetLinger(0); c.Close() },
	}
	n := each * len(acts)
	cs := s.DialMany(n, "c")
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i, c := range cs {
		wg.Go(func() {
			<-begin
			acts[i%len(acts)](c)
		})
	}
	wg.Go(func() {
		<-begin
		if err := s.Hub.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
	close(begin)
	wg.Wait()
	gone.wait(t, n) // those that have not closed, too
	gone.after(t, n, cs...)
	before.Over(t)
}

// A connection's descriptor, and its place in the poller, are used again at once. Clients
// come and are cut off while they wake, and those that stay get what is theirs.
func TestHostileComingAndGoing(t *testing.T) {
	const stay, comers, times = 20, 20, 60
	var gone departures
	s := hubtest.Serve(t, channels.Options{OnDisconnect: gone.hook})
	before := hubtest.Used()
	cs := s.DialMany(stay, "stay")
	var come, talk sync.WaitGroup
	done := make(chan struct{})
	for i, c := range cs {
		talk.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				payload := fmt.Sprintf("%d of %d", n, i)
				io.WriteString(c.C, hubtest.WSFrame(hubtest.RawPing, payload))
				wantPong(c, payload)
				if t.Failed() {
					return
				}
			}
		})
	}
	for i := range comers {
		random := rand.New(rand.NewPCG(3, uint64(i)))
		come.Go(func() {
			for range times {
				c, err := net.Dial("tcp", s.HTTP.Listener.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				more := strings.Repeat(hubtest.WSFrame(hubtest.RawPing, "x"), random.IntN(4))
				io.WriteString(c, hubtest.UpgradeRequest("/channel/go/")+more)
				c.SetReadDeadline(time.Now().Add(basetest.Patience))
				c.Read(make([]byte, 1+random.IntN(300))) // it has been let in
				io.WriteString(c, more[:random.IntN(len(more)+1)])
				if random.IntN(2) == 0 {
					c.(*net.TCPConn).SetLinger(0)
				}
				c.Close()
			}
		})
	}
	come.Wait()
	close(done)
	talk.Wait()
	basetest.Eventually(t, "only those who stay are left", func() bool { return s.Hub.Stats().Connections == stay })
	gone.wait(t, comers*times)
	gone.after(t, comers*times+stay, cs...)
	before.Over(t)
}
