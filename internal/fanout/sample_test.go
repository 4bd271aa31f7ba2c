package fanout

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A group's message is sent to two receivers. The test says what becomes of it.
func TestLatencyEndsWithTheLastWrite(t *testing.T) {
	var r released
	take := func(o *Outbox) {
		o.take(nil, &r)
		r.flush(o.queued)
	}
	for name, c := range map[string]struct {
		before func(first, second *Outbox) // the Cast is done
		after  func(first, second *Outbox)
		want   []int // how many are counted before and after these, and at the end
	}{
		"both write":           {nil, func(first, _ *Outbox) { take(first) }, []int{0, 0, 1}},
		"the writers overtake": {func(first, second *Outbox) { take(first); take(second) }, nil, []int{0, 1, 1}},
		"one is in Go":         {nil, func(first, _ *Outbox) { first.Next() }, []int{0, 0, 1}},
		"one leaves first":     {nil, func(first, _ *Outbox) { first.Abandon(nil) }, []int{0, 0, 1}},
		"one leaves last":      {nil, func(first, second *Outbox) { take(first); second.Abandon(nil) }, []int{0, 0, 0}},
		"nobody takes it":      {nil, func(first, second *Outbox) { first.Abandon(nil); second.Abandon(nil) }, []int{0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			e := New(Config{QueueBytes: 1 << 20})
			g := e.Group()
			outs := [2]Outbox{}
			counted := func() (n int) {
				counts, _ := e.Latency.Read()
				for _, c := range counts {
					n += int(c)
				}
				return n
			}
			call := func(f func(first, second *Outbox)) {
				if f != nil {
					f(&outs[0], &outs[1])
				}
			}
			f := text(&g, Message, "x")
			f.Begin(e.now())
			cast := g.Cast(f, 3) // one of them has gone meanwhile
			for i := range outs {
				outs[i].Init(e, &nobody{}, WebSocket)
				cast.To(&outs[i], Close)
			}
			call(c.before)
			require.Equal(t, c.want[0], counted())
			cast.Done()
			require.EqualValues(t, 2, e.Delivered.Load())
			call(c.after)
			require.Equal(t, c.want[1], counted())
			take(&outs[1])
			require.Equal(t, c.want[2], counted())

			var late Outbox
			late.Init(e, &nobody{}, WebSocket)
			late.Offer(f) // a subscriber that catches up
			take(&late)
			if c.want[2] == 1 {
				require.Equal(t, 1, counted(), "it counts once")
			}
			require.EqualValues(t, 3, e.Delivered.Load())
		})
	}
}

func TestSomeMessagesAreSampled(t *testing.T) {
	e := New(Config{})
	next := int64(1)
	sampled := func(of int) (n int) {
		for range of {
			if e.Sample(next) != 0 {
				n++
			}
			next++
		}
		return n
	}
	e.Tick()
	require.Equal(t, eagerSamples, sampled(eagerSamples), "the first of a second")
	require.Equal(t, 10, sampled(10*sampleEvery))
	e.Tick()
	require.Equal(t, 1, sampled(1))
}

func TestOnlyMessagesCountAsDelivered(t *testing.T) {
	e := New(Config{QueueBytes: 1 << 20})
	g := e.Group()
	outs := [2]Outbox{}
	for i := range outs {
		outs[i].Init(e, &nobody{}, WebSocket)
	}
	outs[1].Abandon(nil)
	for kind, want := range map[Kind]int64{Message: 1, Event: 0} {
		before := e.Delivered.Load()
		cast := g.Cast(text(&g, kind, "x"), 2)
		cast.To(&outs[0], Close)
		cast.To(&outs[1], Close)
		cast.Done()
		require.Equal(t, want, e.Delivered.Load()-before)
	}
}
