package steady_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/certtest"
	"github.com/channels-go/channels/internal/steady"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A peer takes rate bytes a second. It is also the socket that a test writes to:
// its buffer is full, and like the system it wakes a writer only when wake bytes
// are free.
type peer struct {
	net.Conn
	rate, wake int
	until      time.Time // the peer takes nothing after that; zero: it goes on

	began    time.Time
	taken    int
	got      bytes.Buffer
	deadline time.Time
	writes   int
}

func (p *peer) SetWriteDeadline(t time.Time) error { p.deadline = t; return nil }

func (p *peer) free() int {
	now := time.Now()
	if !p.until.IsZero() && now.After(p.until) {
		now = p.until
	}
	return int(now.Sub(p.began).Seconds()*float64(p.rate)) - p.taken
}

func (p *peer) Write(b []byte) (n int, err error) {
	p.writes++
	for need := 1; ; need = p.wake {
		if !time.Now().Before(p.deadline) {
			return n, os.ErrDeadlineExceeded
		}
		if free := p.free(); free >= need || len(b) == n {
			k := min(free, len(b)-n)
			p.got.Write(b[n : n+k])
			p.taken += k
			if n += k; n == len(b) {
				return n, nil
			}
		}
		time.Sleep(min(10*time.Millisecond, time.Until(p.deadline)))
	}
}

// A socket can be told from other connections by its SyscallConn.
type socket struct{ *peer }

func (socket) SyscallConn() (syscall.RawConn, error) { return nil, nil }

func body(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// A peer that takes something all the time gets everything, even if it is slow
// and the system reports its progress late.
func TestSlowButSteady(t *testing.T) {
	for name, p := range map[string]peer{
		"slow":                   {rate: 100_000, wake: 1},
		"slow, and woken seldom": {rate: 300_000, wake: 1 << 20}, // each 3.5 s
		"a few bytes at a time":  {rate: 400, wake: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := p
				p.began = time.Now()
				b := body(60 * p.rate) // a minute of it
				n, err := steady.Write(socket{&p}, b, 3*time.Second)
				require.NoError(t, err)
				require.Equal(t, len(b), n)
				require.True(t, bytes.Equal(b, p.got.Bytes()))
				require.Greater(t, time.Since(p.began), 59*time.Second)
			})
		})
	}
}

// A peer that stops is given up after the stall, however much it took before.
func TestStalled(t *testing.T) {
	for name, after := range map[string]time.Duration{"from the first byte": 0, "after a while": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				p := peer{rate: 100_000, wake: 1 << 20, began: began, until: began.Add(after)}
				n, err := steady.Write(socket{&p}, body(60*p.rate), 3*time.Second)
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				require.Equal(t, p.got.Len(), n)
				require.InDelta(t, after.Seconds()*float64(p.rate), n, 1)
				stalled := time.Since(p.until)
				require.GreaterOrEqual(t, stalled, 3*time.Second)
				require.LessOrEqual(t, stalled, 3*time.Second+3*time.Second/4)
			})
		})
	}
}

// If an interrupted write cannot continue, each piece has the whole stall.
func TestPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peer{rate: 16_000, wake: 1, began: time.Now()}
		b := body(20 * p.rate)
		n, err := steady.Write(&p, b, 3*time.Second)
		require.NoError(t, err)
		require.Equal(t, len(b), n)
		require.True(t, bytes.Equal(b, p.got.Bytes()))
		require.Equal(t, 20, p.writes)

		p = peer{rate: 100_000, wake: 1, began: time.Now(), until: time.Now().Add(time.Second)}
		n, err = steady.Write(&p, b, 3*time.Second)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, p.got.Len(), n)
		before := p.writes
		_, err = steady.Write(&p, nil, 3*time.Second)
		require.NoError(t, err)
		require.Equal(t, before+1, p.writes, "an empty write is passed on too")
	})
}

// Without a stall, the connection's own deadline counts, as in a handshake.
func TestConnWithoutStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		p := &peer{rate: 1000, wake: 1, began: began}
		c := steady.NewConn(socket{p})
		require.NoError(t, c.SetWriteDeadline(began.Add(5*time.Second)))
		_, err := c.Write(body(60_000))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(began))
		c.SetStall(time.Second)
		n, err := c.Write(body(60_000))
		require.NoError(t, err)
		require.Equal(t, 60_000, n)
	})
}

// Over real sockets, plain and beneath TLS: a reader that takes 4 MB a second
// for several times the stall gets everything. Then it stops, and is given up.
func TestOverTCP(t *testing.T) {
	const (
		stall = 1500 * time.Millisecond
		step  = 100 * time.Millisecond // far below stall, for a busy machine
		size  = 16 << 20
	)
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			below, in := basetest.Pair(t)
			conn := steady.NewConn(below)
			var out net.Conn = conn
			if secure {
				out = tls.Server(out, certtest.NewAuthority().Config())
				in = tls.Client(in, &tls.Config{InsecureSkipVerify: true})
				var shaking sync.WaitGroup
				shaking.Go(func() { _ = in.(*tls.Conn).Handshake() }) // out's tells
				require.NoError(t, out.(*tls.Conn).Handshake())
				shaking.Wait()
			}
			conn.SetStall(stall)
			want := body(size)
			var writing sync.WaitGroup
			var err, stuck error
			writing.Go(func() {
				if _, err = out.Write(want); err == nil {
					for stuck == nil { // the reader has stopped
						_, stuck = out.Write(want)
					}
				}
			})
			got := make([]byte, 0, size)
			for tick := time.NewTicker(step); len(got) < size; <-tick.C {
				n, err := io.ReadFull(in, got[len(got):min(len(got)+size/40, size)])
				require.NoError(t, err)
				got = got[:len(got)+n]
			}
			writing.Wait()
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
			require.ErrorIs(t, stuck, os.ErrDeadlineExceeded)
		})
	}
}

// Close ends a write that waits.
func TestClose(t *testing.T) {
	t.Parallel()
	out, _ := basetest.Pair(t)
	ended := make(chan error, 1)
	go func() { // ends with the connection
		for {
			if _, err := steady.Write(out, make([]byte, 1<<20), time.Minute); err != nil {
				ended <- err
				return
			}
		}
	}()
	require.NoError(t, out.Close())
	require.ErrorIs(t, <-ended, net.ErrClosed)
}
