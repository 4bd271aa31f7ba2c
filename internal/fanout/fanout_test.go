package fanout

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type nobody struct{}

func (n *nobody) Wake()      {}
func (n *nobody) Kill(error) {}

// newEngine returns an engine that is stopped with the test.
func newEngine(t testing.TB, c Config) *Engine {
	t.Helper()
	if c.QueueBytes == 0 {
		c.QueueBytes = 1 << 20
	}
	e := New(c)
	e.Start()
	t.Cleanup(func() {
		e.Conns.Shut()
		require.NoError(t, e.Conns.Wait(noContext))
		e.Stop()
	})
	return e
}

// text returns one of a group's frames.
func text(g *Group, kind Kind, s string) *Frame {
	f := NewText(len(s), func(b []byte) []byte { return append(b, s...) })
	f.Kind, f.Group = kind, g
	return f
}

// BenchmarkFanOut queues a message for each of 1,000 receivers and takes it out again.
func BenchmarkFanOut(b *testing.B) {
	e := New(Config{QueueBytes: 1 << 20})
	g := e.Group()
	outs := make([]*Outbox, 1000)
	for i := range outs {
		outs[i] = new(Outbox)
		outs[i].Init(e, &nobody{}, WebSocket)
	}
	var frames []*Frame
	var r released
	b.ReportAllocs()
	for b.Loop() {
		f := text(&g, Message, `{"header":"x","body":"0123456789012345678901234567890123456789"}`)
		c := g.Cast(f, len(outs))
		for i, o := range outs {
			if i%16 == 0 {
				for _, next := range outs[i:min(i+16, len(outs))] {
					next.Fetch()
				}
			}
			c.To(o, Close)
		}
		c.Done()
		for _, o := range outs {
			frames = o.take(frames[:0], &r)
			o.take(frames[:0], &r)
		}
		r.flush(e.counter(0))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/receiver")
	require.Zero(b, e.Queued())
}
