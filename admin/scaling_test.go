package admin_test

import (
	"context"
	"sync/atomic"
	"testing"

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
