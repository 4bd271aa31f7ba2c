package zmtp_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
)

// single allows messages of one frame, some of which are longer than the buffer.
var single = zmtp.Limits{Frame: 100 << 10, Message: 100 << 10, Frames: 1}

// Messages of all lengths come as they were sent, however the network cuts them, and
// although the caller overwrites what it has got.
func TestMessage(t *testing.T) {
	var want []string
	var sent []byte
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 255, 256, 64<<10 - zmtp.MaxHeader, 64<<10 - zmtp.MaxHeader + 1, 64 << 10, 100 << 10} {
		for range 3 {
			s := strings.Repeat(string(rune('a'+len(want)%26)), n)
			want = append(want, s, "between")
			sent = append(append(sent, frame(s)...), frame("between")...)
		}
	}
	for name, from := range map[string]io.Reader{
		"at once":          bytes.NewReader(sent),
		"in random pieces": pieces{bytes.NewReader(sent), r},
		"by bytes":         iotest.OneByteReader(bytes.NewReader(sent)),
	} {
		g := zmtp.ShakenGuard(script{r: from}, single, nil)
		for i, s := range want {
			b, err := g.Message()
			require.NoError(t, err, name)
			require.True(t, s == string(b), "%s: message %d differs", name, i)
			for k := range b {
				b[k] = 0xff
			}
		}
		_, err := g.Message()
		require.ErrorIs(t, err, io.EOF, name)
	}
}

// pieces reads up to 40 KiB at a time.
type pieces struct {
	r    io.Reader
	rand *rand.Rand
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), 1+p.rand.IntN(40<<10))]) }

func frame(s string) []byte { return zmtp.AppendMessage(nil, []byte(s)) }

func TestMessageRefuses(t *testing.T) {
	for _, c := range []struct {
		want string
		sent []byte
	}{
		{"at most 102400 are allowed", frame(strings.Repeat("x", 100<<10+1))},
		{"at most 102400 are allowed", []byte{2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{"more than 1 frames", zmtptest.Frame(1, "x")},
		{"not allowed", zmtptest.Frame(4, "\x04PING\x00\x00")},
		{"unexpected EOF", []byte{0}},
		{"unexpected EOF", []byte{0, 1}},
		{"unexpected EOF", frame(strings.Repeat("x", 1000))[:500]},
		{"unexpected EOF", frame(strings.Repeat("x", 99<<10))[:9]},
		{"unexpected EOF", frame(strings.Repeat("x", 99<<10))[:98<<10]},
	} {
		g := zmtp.ShakenGuard(script{r: bytes.NewReader(slices.Concat(frame("good"), c.sent))}, single, nil)
		b, err := g.Message()
		require.NoError(t, err)
		require.Equal(t, "good", string(b))
		_, err = g.Message()
		require.ErrorContains(t, err, c.want)
	}
}

// A message that fits into the buffer is not allocated.
func TestMessageIsNotAllocated(t *testing.T) {
	g := zmtp.ShakenGuard(script{r: endless(frame(strings.Repeat("x", 32<<10)))}, single, nil)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		b, err := g.Message()
		if err != nil || len(b) != 32<<10 {
			t.Fatal(len(b), err)
		}
	}))
}

// endless repeats itself.
type endless []byte

func (e endless) Read(p []byte) (int, error) { return copy(p, e), nil }

// FuzzMessage compares Message with what the library reads.
func FuzzMessage(f *testing.F) {
	for _, seed := range [][]byte{
		slices.Concat(frame("a"), frame(""), frame(strings.Repeat("x", 300))), {2, 0, 0, 0, 0, 0, 0, 0, 1, 'x'}, zmtptest.Frame(1, "x"),
		zmtptest.Frame(4, "\x04PING"), {0, 200}, {2, 0, 0, 0, 0, 0, 0, 0x20, 0}, {0}, {},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := openGuarded(slices.Concat(zmtptest.Greeting("NULL"), zmtptest.Ready("PUSH"), b), single)
		require.NoError(t, err)
		g := zmtp.ShakenGuard(script{r: bytes.NewReader(b)}, single, func([]byte) {})
		for {
			msg, err := c.RecvMsg()
			got, err2 := g.Message()
			require.Equal(t, err == nil, err2 == nil, "%v, %v", err, err2)
			if err != nil {
				return
			}
			require.Equal(t, string(msg.Frames[0]), string(got))
		}
	})
}
