package channels

import (
	"context"
	"testing"
)

type nobody struct{}

func (n *nobody) wake()      {}
func (n *nobody) kill(error) {}

// BenchmarkFanOut queues a message for each of 1,000 subscribers and takes it out again.
func BenchmarkFanOut(b *testing.B) {
	h, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer h.Shutdown(context.Background())
	ch, _ := h.newChannel("c")
	cs := make([]*client, 1000)
	for i := range cs {
		cs[i] = &client{}
		h.initClient(cs[i], &nobody{}, formatWS, "c", Client{})
		cs[i].sub.ch = ch
		ch.attachLocked(&cs[i].sub)
	}
	m := Message{Header: "x", Body: []byte(`"0123456789012345678901234567890123456789"`)}
	var frames []*frame
	var r released
	b.ReportAllocs()
	for b.Loop() {
		ch.deliver(newMessageFrame(ch, m))
		for _, c := range cs {
			frames = c.take(frames[:0], writeBytes, &r)
			c.take(frames[:0], writeBytes, &r)
		}
		r.flush(h.queued.counter(0))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/receiver")
}
