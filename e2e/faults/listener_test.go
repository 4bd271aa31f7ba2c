//go:build linux

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/hubtest"
)

var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// dial subscribes to a channel, which may have a query.
func dial(ctx context.Context, r *replica, channel string) (*websocket.Conn, error) {
	ws, _, err := websocket.Dial(ctx, "ws://"+r.addr+"/channel/"+channel, &websocket.DialOptions{HTTPClient: plain})
	return ws, err
}

// text returns a message's body, without quotes if it is a string.
func text(m hubtest.Message) string { return strings.Trim(string(m.Body), `"`) }

func receive(ctx context.Context, ws *websocket.Conn) (m hubtest.Message, err error) {
	_, b, err := ws.Read(ctx)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// A listener is a WebSocket that must receive everything.
type listener struct {
	t       *testing.T
	channel string
	ws      *websocket.Conn
	n       int      // how many messages publish has sent
	got     []string // what reads has received
}

func listen(t *testing.T, r *replica, channel string) *listener {
	t.Helper()
	ws, err := dial(t.Context(), r, channel+"/")
	require.NoError(t, err)
	t.Cleanup(func() { ws.CloseNow() })
	return &listener{t: t, channel: channel, ws: ws}
}

// publish publishes the next message on another replica and waits until it
// arrives: in a channel without history, since the mesh has no fault. It repeats
// the first one until then, since the subscription takes a moment.
func (l *listener) publish(from *replica) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	if l.n == 0 {
		first := make(chan error, 1)
		go func() { // ends with ctx
			_, err := receive(ctx, l.ws)
			first <- err
		}()
		pace := time.NewTicker(100 * time.Millisecond)
		defer pace.Stop()
		for l.n == 0 {
			post(quick, from, l.channel, "0", "") // the subscription may not be active yet
			select {
			case err := <-first:
				require.NoError(l.t, err, "the first message of %s", l.channel)
				l.n = 1
			case <-pace.C:
			}
		}
	}
	_, err := post(patient, from, l.channel, fmt.Sprint(l.n), "")
	require.NoError(l.t, err)
	for got := "0"; got == "0"; { // another copy of the first message
		m, err := receive(ctx, l.ws)
		require.NoError(l.t, err, "message %d of %s", l.n, l.channel)
		if got = text(m); got != "0" {
			require.Equal(l.t, fmt.Sprint(l.n), got)
		}
	}
	l.n++
}

// reads receives as many words as wanted has, and requires that they are equal.
// A message that is not a publisher's is its header and offset.
func (l *listener) reads(want string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	for len(l.got) < len(strings.Fields(want)) {
		m, err := receive(ctx, l.ws)
		require.NoError(l.t, err, "it received %v", l.got)
		word := text(m)
		if m.Header != "m" {
			word = fmt.Sprintf("%s@%d", m.Header, m.Offset)
		}
		l.got = append(l.got, word)
	}
	require.Equal(l.t, want, strings.Join(l.got, " "))
}
