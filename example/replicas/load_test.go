package main

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

// What a client misses shows in the offsets, and a reset says it.
func TestLoadCountsWhatIsMissed(t *testing.T) {
	var l load
	var at seen
	take := func(message string) [2]int64 {
		l.take([]byte(message), &at)
		return [2]int64{l.received.Load(), l.missed.Load()}
	}
	require.Equal(t, [2]int64{1, 0}, take(`{"header":"say","epoch":"a","offset":7}`), "the first one")
	require.Equal(t, [2]int64{2, 0}, take(`{"header":"say","epoch":"a","offset":8}`))
	require.Equal(t, [2]int64{3, 2}, take(`{"header":"say","epoch":"a","offset":11}`))
	require.Equal(t, [2]int64{3, 2}, take(`{"header":"exchange","body":{"msg":"ok"}}`))
	require.Equal(t, [2]int64{3, 5}, take(`{"header":"reset","epoch":"a","offset":14}`))
	require.Equal(t, [2]int64{4, 5}, take(`{"header":"say","epoch":"a","offset":20}`), "the first one after a reset")
	require.Equal(t, [2]int64{4, 6}, take(`{"header":"reset","epoch":"b","offset":3}`), "nobody knows how many")
	require.Equal(t, [2]int64{5, 6}, take(`{"header":"say"}`), "without a history")
	require.Equal(t, [2]int64{5, 6}, take(`no JSON`))
}

// The load begins and ends when somebody asks, and only from this machine.
func TestLoadOnRequest(t *testing.T) {
	t.Parallel()
	a := program(t, 2)
	ready(t, a, 2)
	state := func() (s loadState) {
		_, body := call(t, "GET", "http://"+a+"/replicas")
		require.NoError(t, json.Unmarshal([]byte(body), &struct{ Load *loadState }{&s}))
		return s
	}
	require.False(t, state().On)
	wantStatus(t, http.StatusForbidden, "POST", "http://"+a+"/load/start", "Origin", "https://evil.example")
	require.False(t, state().On)
	for range 2 { // started twice, it is there once
		wantStatus(t, http.StatusNoContent, "POST", "http://"+a+"/load/start")
	}
	basetest.Eventually(t, "each client has got something", func() bool { return state().Received > 20*loadChannels*loadSubscribers })
	wantStatus(t, http.StatusNoContent, "POST", "http://"+a+"/load/stop")
	after := state()
	require.False(t, after.On)
	require.Equal(t, after.Received, state().Received)
}
