package channels_test

import (
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// text is the next message as it comes.
func (w *wsClient) text() string {
	w.t.Helper()
	_, b, err := w.c.Read(ctxT(w.t))
	require.NoError(w.t, err)
	return string(b)
}

// Who asks for bodies gets them alone, over a WebSocket and over a stream. What the hub
// itself says is as ever.
func TestBodiesAlone(t *testing.T) {
	s := serve(t, channels.Options{CompressBytes: 100, Channel: func(string) channels.ChannelOptions {
		return channels.ChannelOptions{HistorySize: 10, Presence: channels.PresenceEvents}
	}})
	w := s.join("h", "?format=body")
	require.True(t, strings.HasPrefix(w.text(), `{"header":"presence","body":{"event":"join",`))
	w.send(`{"header":"x","body":{"a":1},"id":1}`)
	require.Equal(t, `{"a":1}`, w.text())
	require.True(t, strings.HasPrefix(w.text(), `{"header":"exchange","body":{"msg":"ok","offset":1,`))
	w.send(`{"header":"error","body":1,"id":2}`)
	require.True(t, strings.HasPrefix(w.text(), `{"header":"error","body":{"code":"reserved_header",`))
	s.publish("h", "y", `"text"`)
	require.Equal(t, `"text"`, w.text())

	deflated, _, err := s.tryDial("/channel/h/?format=body&since=:0", &websocket.DialOptions{CompressionMode: websocket.CompressionNoContextTakeover})
	require.NoError(t, err)
	body := `"` + long(1000) + `"`
	s.publish("h", "y", body)
	got := map[string]int{}
	for range 4 { // a presence event among them
		got[deflated.text()]++
	}
	require.Equal(t, 1, got[`{"a":1}`]*got[`"text"`]*got[body], "%v", got)

	e := s.stream("h", "?format=body&since=:0")
	var bodies []string
	for len(bodies) < 3 {
		if ev := e.next(); ev.id != "" {
			bodies = append(bodies, ev.data)
			require.True(t, strings.HasSuffix(ev.id, ":"+string(rune('0'+len(bodies)))), ev.id)
		} else {
			require.Equal(t, "presence", ev.header())
		}
	}
	require.Equal(t, []string{`{"a":1}`, `"text"`, body}, bodies)
	e.close()
	last := s.stream("h", "?format=body", "Last-Event-ID", "x")
	require.Equal(t, "reset", last.next().header())
	last.close()
	s.getStream("/v1/events?channel=h&format=body").wantFail(t, 400, "bad_query")
}

// A client that asks for it is told where it begins, so that it can go on from there even
// if no message comes before it is cut.
func TestAClientIsToldWhereItBegins(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	require.Equal(t, `{"header":"exchange","body":{"msg":"joined"},"offset":0,"epoch":""}`, s.join("h", "?position=event").text())
	epoch := publish(t, s.hub, "h", "x", "1").Position.Epoch
	publish(t, s.hub, "h", "x", "2")
	w := s.join("h", "?position=event")
	m := w.want("exchange", `{"msg":"joined"}`)
	require.Equal(t, channels.Position{Epoch: epoch, Offset: 2}, channels.Position{Epoch: m.Epoch, Offset: m.Offset})
	w.c.CloseNow()
	publish(t, s.hub, "h", "x", "3")
	s.join("h", m.Since()).want("x", "3")

	w = s.join("h", "?position=event&last=1&format=body")
	require.Equal(t, `{"header":"exchange","body":{"msg":"joined"},"offset":2,"epoch":"`+epoch+`"}`, w.text(), "before the newest")
	require.Equal(t, "3", w.text())

	for channel, query := range map[string]string{"plain": "?position=event", "h": "", "h5": "?since=:0&position=event"} {
		w := s.join(channel, query)
		publish(t, s.hub, channel, "x", "0")
		w.want("x", "0")
	}
	e := s.stream("h", "?position=event")
	ev, err := e.read()
	require.NoError(t, err)
	require.Equal(t, sseEvent{id: epoch + ":4", lines: 1}, ev, "a stream says it anyway")
	e.close()
	s.handshake("/channel/h/?position=1").wantFail(t, 400, "bad_query")
}
