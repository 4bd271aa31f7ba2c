package channels_test

import (
	"html/template"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

func TestSSENamedEvents(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	e := s.stream("h", "?format=event")
	begin, err := e.read()
	require.NoError(t, err)
	require.Equal(t, sseEvent{id: ":0", lines: 1}, begin, "where it begins")
	epoch := publish(t, s.hub, "h", "card", string(channels.HTML("<p>one</p>\n<p>two</p>"))).Position.Epoch
	require.Equal(t, sseEvent{id: epoch + ":1", event: "card", data: "<p>one</p>\n<p>two</p>", lines: 4}, e.next())
	publish(t, s.hub, "h", "n", `{"a":"<\n"}`)
	require.Equal(t, sseEvent{id: epoch + ":2", event: "n", data: `{"a":"<\n"}`, lines: 3}, e.next())
	publish(t, s.hub, "h", "message", `1`)
	require.Equal(t, sseEvent{id: epoch + ":3", data: "1", lines: 2}, e.next(), "it is called so without a name")
	publish(t, s.hub, "h", "a\nid: x", `1`)
	require.Equal(t, sseEvent{id: epoch + ":4", data: "1", lines: 2}, e.next())
	publish(t, s.hub, "h", "empty", `""`)
	ev, err := e.read()
	require.NoError(t, err)
	require.Equal(t, sseEvent{id: epoch + ":5", event: "empty", lines: 3}, ev, "its line of data is what makes an event of it")
	e.close()

	t.Run("resumes, beside others", func(t *testing.T) {
		e, plain, w := s.stream("h", "?format=event", "Last-Event-ID", epoch+":3"), s.stream("h", ""), s.join("h", "")
		require.Equal(t, epoch+":4", e.next().id)
		_, err := e.read()
		require.NoError(t, err)
		s.publish("h", "x", `"text"`)
		require.Equal(t, sseEvent{id: epoch + ":6", event: "x", data: "text", lines: 3}, e.next())
		plain.want("x", `"text"`)
		w.want("x", `"text"`)
		e.close()
	})
	t.Run("a reset", func(t *testing.T) {
		e := s.stream("h", "?format=event", "Last-Event-ID", "x")
		require.Equal(t, sseEvent{id: epoch + ":6", event: "reset", data: `{"reason":"epoch"}`, lines: 3}, e.next())
		e.close()
	})
	t.Run("wrong", func(t *testing.T) {
		for _, query := range []string{"?format=json", "?format=event&format=event", "?format=EVENT"} {
			s.getStream("/channel/h/"+query).wantFail(t, 400, "bad_query")
		}
		s.get("/channel/h/?format=event").wantFail(t, 426, "upgrade_required")
		s.handshake("/channel/h/?format=event").wantFail(t, 400, "bad_query")
	})
	t.Run("Datastar adds its signals", func(t *testing.T) { s.stream("h", `?format=event&datastar=%7B%22a%22%3A1%7D`).close() })
}

// What the hub itself says has names, too, which no publisher can use.
func TestSSENamedEventsOfTheHub(t *testing.T) {
	s := serve(t, channels.Options{Channel: func(string) channels.ChannelOptions {
		return channels.ChannelOptions{Presence: channels.PresenceEvents}
	}})
	e := s.stream("a", "?format=event")
	ev := e.next()
	require.Equal(t, "presence", ev.event)
	require.True(t, strings.HasPrefix(ev.data, `{"event":"join","member":{"id":`), ev.data)
	require.Equal(t, 1, s.hub.Stats().Connections)
	require.NoError(t, s.hub.Drain(t.Context()))
	require.Equal(t, "reconnect", e.next().event)
	_, err := e.read()
	require.Equal(t, io.EOF, err)

	// A page that swaps in what has no name would show the refusal.
	e = s.stream("a", "?format=event")
	ev, err = e.read()
	require.NoError(t, err)
	require.Equal(t, "error", ev.event)
	require.True(t, strings.HasPrefix(ev.data, `{"code":"draining",`), ev.data)
}

func TestHTML(t *testing.T) {
	for text, want := range map[string]string{
		`<p class="a">grüße &amp;</p>`: `"<p class=\"a\">grüße &amp;</p>"`,
		"":                             `""`,
		"a\n\r\x00\u2028\xff":          `"a\n\r\u0000\u2028\ufffd"`,
	} {
		require.Equal(t, want, string(channels.HTML(text)))
	}
	var b strings.Builder
	require.NoError(t, template.Must(template.New("").Parse("<p>{{.}}</p>\n")).Execute(&b, "<b>"))
	require.Equal(t, `"<p>&lt;b&gt;</p>\n"`, string(channels.HTML(b.String())))
}
