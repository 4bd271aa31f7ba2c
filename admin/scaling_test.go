package admin_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/internal/basetest"
)

// slowScaler notes a question or an order, waits, whatever the context says, and then
// answers with what was wanted at first.
type slowScaler struct {
	wanted atomic.Int64
	began  chan string // "asked" or "ordered"
	end    chan struct{}
}

func newSlowScaler() *slowScaler {
	s := &slowScaler{began: make(chan string, 100), end: make(chan struct{})}
	s.wanted.Store(2)
	return s
}

func (s *slowScaler) Replicas(context.Context) (ready, wanted int, err error) {
	n := int(s.wanted.Load())
	s.began <- "asked"
	<-s.end
	return n, n, nil
}

func (s *slowScaler) Scale(_ context.Context, n int) error {
	s.wanted.Store(int64(n))
	return nil
}

// An answer that the Scaler began before an order is not taken for news.
func TestAnswersOlderThanAnOrder(t *testing.T) {
	slow := newSlowScaler()
	b := serve(t, channels.Options{}, admin.Options{Scaler: slow}).browser().login()
	require.False(t, get[overview](b, "api/overview").Scaling.Known)
	require.Equal(t, "asked", <-slow.began)
	resp, text := b.do("POST", "api/scale", `{"replicas":5}`)
	require.Equal(t, 200, resp.StatusCode, text)
	close(slow.end)
	var o overview
	basetest.Eventually(t, "the number is known", func() bool {
		o = get[overview](b, "api/overview")
		return o.Scaling.Known
	})
	require.Equal(t, 5, o.Scaling.Wanted)
}

// A Scaler that heeds no context does not keep the replica from ending.
func TestCloseDoesNotWaitForTheScaler(t *testing.T) {
	slow := newSlowScaler()
	s := serve(t, channels.Options{}, admin.Options{Scaler: slow})
	defer close(slow.end)
	get[overview](s.browser().login(), "api/overview")
	require.Equal(t, "asked", <-slow.began)
	s.page.CloseWithin(1)
	err := s.page.Close()
	require.ErrorContains(t, err, "admin: Close has waited 1ns in vain for ")
	require.ErrorContains(t, err, "Scaler.Replicas")
	require.NoError(t, s.page.Close(), "it waits once")
}

// A Scaler that panics is one that fails.
func TestScalerPanics(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{Scaler: panickingScaler{}})
	b := s.browser().login()
	basetest.Eventually(t, "the page says so", func() bool {
		o := get[overview](b, "api/overview")
		require.False(t, o.Scaling.Known)
		return o.Scaling.Error == "panic in Scaler.Replicas; the log of this replica says more"
	})
	require.Contains(t, s.log.Line("admin: panic in Scaler.Replicas"), "of the question")
	require.Contains(t, b.wantRefused(502, "scaler_failed", "POST", "api/scale", `{"replicas":2}`), "panic in Scaler.Scale")
	require.Contains(t, s.log.Line("admin: panic in Scaler.Scale"), "of the order")
}

type panickingScaler struct{}

func (panickingScaler) Replicas(context.Context) (ready, wanted int, err error) {
	panic("of the question")
}

func (panickingScaler) Scale(context.Context, int) error { panic("of the order") }

// Replicas are missing for long 10 s after this process has seen it or an order; at once
// if it has not looked for so long.
func TestReplicasAreMissing(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1_000_000, 0).Add(time.Duration(s * float64(time.Second))) }
	type step struct {
		at            float64
		ready, wanted int
		ordered       bool
		late          bool
	}
	for name, steps := range map[string][]step{
		"none":                  {{100, 2, 2, false, false}, {101, 3, 2, false, false}},
		"they just start":       {{100, 2, 2, false, false}, {101, 2, 3, false, false}, {105, 2, 3, false, false}, {111, 2, 3, false, false}, {112, 2, 3, false, true}, {113, 3, 3, false, false}},
		"one dies":              {{100, 2, 2, false, false}, {101, 1, 2, false, false}, {106, 1, 2, false, false}, {112, 1, 2, false, true}},
		"one after the other":   {{100, 2, 2, false, false}, {101, 1, 2, false, false}, {106, 2, 2, false, false}, {107, 1, 2, false, false}, {112, 1, 2, false, false}},
		"more are wanted":       {{100, 2, 2, false, false}, {101, 2, 3, false, false}, {110, 2, 4, false, false}, {115, 2, 4, false, false}, {121, 2, 4, false, true}},
		"an order":              {{100, 1, 2, false, true}, {101, 1, 2, true, false}, {102, 1, 2, false, false}, {111, 1, 2, false, false}, {113, 1, 2, false, true}},
		"first look":            {{100, 1, 2, false, true}},
		"it was born just then": {{4, 1, 2, false, false}, {9, 1, 2, false, false}, {11, 1, 2, false, true}},
		"nobody looked":         {{100, 2, 2, false, false}, {111, 1, 2, false, true}, {112, 2, 2, false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			m := admin.NewMissing(at(0))
			for _, s := range steps {
				if s.ordered {
					m.Ordered(at(s.at), s.wanted)
					require.False(t, m.Late(at(s.at+60)), "while the Scaler does not answer, nobody knows")
				} else {
					m.Answered(at(s.at), s.ready, s.wanted)
				}
				require.Equal(t, s.late, m.Late(at(s.at)), "%+v", s)
			}
		})
	}
}

// The API says so.
func TestOverviewSaysThatReplicasAreMissing(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{Scaler: fewScaler{}})
	s.page.BornBefore(time.Minute)
	b := s.browser().login()
	basetest.Eventually(t, "replicas are missing", func() bool { return get[overview](b, "api/overview").Scaling.Late })
	resp, text := b.do("POST", "api/scale", `{"replicas":2}`)
	require.Equal(t, 200, resp.StatusCode, text)
	require.False(t, get[overview](b, "api/overview").Scaling.Late)
}

// fewScaler has one replica of two.
type fewScaler struct{}

func (fewScaler) Replicas(context.Context) (ready, wanted int, err error) { return 1, 2, nil }
func (fewScaler) Scale(context.Context, int) error                        { return nil }
