package channels_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

func TestOnPublishChangesMessages(t *testing.T) {
	type row struct {
		name         string
		change       func(*channels.Publication) // what the hook does
		refuse       error                       // what it returns
		header, body string                      // what arrives, or
		code         string                      // of the refusal
	}
	header := func(text string) func(*channels.Publication) {
		return func(p *channels.Publication) { p.Message.Header = text }
	}
	body := func(text string) func(*channels.Publication) {
		return func(p *channels.Publication) { p.Message.Body = json.RawMessage(text) }
	}
	var hook atomic.Pointer[row]
	s := serve(t, channels.Options{Channel: keeps, MaxMessageBytes: 1024, OnPublish: func(_ context.Context, p *channels.Publication) error {
		does := hook.Load()
		if does.change != nil {
			does.change(p)
		}
		return does.refuse
	}})
	w, h, elsewhere := s.join("a", ""), s.join("h", ""), s.join("elsewhere", "")
	for _, c := range []row{
		{name: "nothing", header: "m", body: `"b"`},
		{name: "header", change: header("changed"), header: "changed", body: `"b"`},
		{name: "body", change: body("{\n\"by\":\r\n\"hook\"}"), header: "m", body: `{"by":"hook"}`},
		{name: "body, in place", change: func(p *channels.Publication) { copy(p.Message.Body, `"X"`) }, header: "m", body: `"X"`},
		{name: "channel", // it was authorised for the first one
			change: func(p *channels.Publication) { p.Channel = "elsewhere" }, header: "m", body: `"b"`},
		{name: "position", header: "m", body: `"b"`,
			change: func(p *channels.Publication) { p.Message.Position = channels.Position{Epoch: "forged", Offset: 99} }},
		{name: "reserved", change: header("exchange"), code: "reserved_header"},
		{name: "empty", change: header(""), code: "bad_message"},
		{name: "broken", change: body(`{`), code: "bad_message"},
		{name: "no body", change: func(p *channels.Publication) { p.Message.Body = nil }, code: "bad_message"},
		{name: "wrong UTF-8", change: body("\"\xff\""), code: "bad_utf8"},
		{name: "long", change: body(`"` + long(1023) + `"`), code: "too_large"},
		{name: "deep", change: body(deep(501)), code: "bad_message"},
		{name: "plain error", refuse: errors.New("secret"), code: "forbidden"},
		{name: "own error", refuse: &channels.Error{Code: "spam", Message: "say something else", Status: 422}, code: "spam"},
		{name: "nothing, at last", header: "m", body: `"b"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			hook.Store(&c)
			for channel, w := range map[string]*wsClient{"a": w, "h": h} {
				a := s.post("/v1/channel/"+channel+"/publish", say(`"b"`))
				w.send(say(`"b"`))
				if c.code != "" {
					require.Equal(t, c.code, a.code(), a.body)
					require.NotContains(t, a.body, "secret")
					require.Equal(t, c.code, w.next().ErrorCode())
					continue
				}
				require.Equal(t, 200, a.status, a.body)
				w.want(c.header, c.body)
				m := w.want(c.header, c.body)
				require.NotEqual(t, "forged", m.Epoch)
				w.wantExchange(m)
			}
		})
	}
	hook.Store(&row{refuse: errors.New("secret")})
	_, err := s.hub.Publish(t.Context(), "a", msg("m", "1"))
	require.EqualError(t, err, "secret", "the app's own code gets the hook's own error")
	t.Run("what the hook keeps is not what was published", func(t *testing.T) {
		kept := make(chan []byte, 1)
		hook.Store(&row{change: func(p *channels.Publication) {
			kept <- p.Message.Body
			p.Message.Body = p.Message.Body[:3]
		}})
		body := []byte(`"b"`)
		publishWith(t, s.hub, "h", channels.Message{Header: "keep", Body: body}, channels.PublishOptions{})
		mine := <-kept
		copy(mine, `"X"`)
		require.Equal(t, `"b"`, string(body), "nor is it the caller's")
		copy(body, `"Y"`)
		h.want("keep", `"b"`)
		page := historyOf(t, s.hub, "h", channels.HistoryQuery{Limit: 1})
		require.Equal(t, `"b"`, string(page.Messages[0].Body))
	})
	hook.Store(new(row))
	s.publish("elsewhere", "only", `1`)
	elsewhere.want("only", `1`)
}

func TestPublishers(t *testing.T) {
	s := serve(t, channels.Options{Channel: named(map[string]channels.ChannelOptions{
		"anyone":     {Publishers: channels.PublishersAnyone},
		"identified": {Publishers: channels.PublishersIdentified},
		"server":     {Publishers: channels.PublishersServer},
	})}, asUser)
	for _, c := range []struct {
		channel string
		user    string
		ok      bool
	}{
		{"anyone", "", true}, {"anyone", "ann", true},
		{"identified", "", false}, {"identified", "ann", true},
		{"server", "", false}, {"server", "ann", false},
	} {
		t.Run(c.channel+" "+c.user, func(t *testing.T) {
			listener := s.join(c.channel, "") // whoever may publish, all may listen
			w := s.joinAs(c.channel, "X-User", c.user)
			a := s.post("/v1/channel/"+c.channel+"/publish", `{"header":"x","body":1}`, "X-User", c.user)
			many := s.post("/v1/publish", `{"channels":["`+c.channel+`"],"header":"x","body":2}`, "X-User", c.user)
			if c.ok {
				a.wantOK(t, `{"status":"ok"}`)
				require.Equal(t, []string{c.channel + " ok"}, outcomes(t, many))
				w.want("x", `1`)
				w.want("x", `2`)
				w.send(`{"header":"x","body":3}`)
				for body := range 3 {
					listener.want("x", fmt.Sprint(body+1))
				}
			} else {
				a.wantFail(t, 403, "forbidden")
				require.Equal(t, []string{c.channel + " forbidden"}, outcomes(t, many))
				w.send(`{"header":"x","body":3}`)
				require.Equal(t, "forbidden", w.next().ErrorCode())
			}
			publish(t, s.hub, c.channel, "go", "1")
			listener.want("go", `1`)
		})
	}
}

func TestPublishOptions(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps, ReplicaID: "n"})
	for _, name := range []string{"a", "h"} {
		t.Run(name, func(t *testing.T) {
			w1, w2 := s.join(name, ""), s.join(name, "")
			ids := map[string][]string{"a": {s.id(1), s.id(2)}, "h": {s.id(3), s.id(4)}}[name]
			res := publishWith(t, s.hub, name, msg("x", "1"), channels.PublishOptions{Except: ids[0]})
			require.Equal(t, 1, res.Receivers)
			w2.want("x", `1`)
			res = publishWith(t, s.hub, name, msg("x", "2"), channels.PublishOptions{Except: "nobody"})
			require.Equal(t, 2, res.Receivers)
			require.Equal(t, name == "h", res.Stored)
			w1.want("x", `2`)
			w2.want("x", `2`)
			res = publishWith(t, s.hub, name, msg("x", "3"), channels.PublishOptions{Local: true, Except: ids[1]})
			require.Equal(t, channels.Result{Receivers: 1}, res, "not stored, so it has no position")
			require.Zero(t, w1.want("x", `3`).Offset)
			res = publish(t, s.hub, name, "x", "4")
			w1.want("x", `4`)
			w2.want("x", `4`)
			if name == "h" {
				require.Equal(t, uint64(3), res.Position.Offset)
				require.Len(t, historyOf(t, s.hub, name, channels.HistoryQuery{}).Messages, 3)
			}
		})
	}
	t.Run("except a Go subscriber", func(t *testing.T) {
		one := subscription(t, s.hub, "go", nil)
		publishWith(t, s.hub, "go", msg("x", "1"), channels.PublishOptions{Except: one.ID()})
		publish(t, s.hub, "go", "x", "2")
		require.Equal(t, "2", string(next(t, one).Body))
	})
	for name, key := range map[string]string{
		"a space": "a b", "too long": long(201), "not ASCII": "é", "a control character": "a\n",
	} {
		_, err := s.hub.PublishWith(t.Context(), "h", msg("x", "1"), channels.PublishOptions{Key: key})
		require.ErrorIs(t, err, channels.ErrBadKey, name)
	}
	t.Run("a repeat says that it is one", func(t *testing.T) {
		first := publishWith(t, s.hub, "h", msg("x", "1"), channels.PublishOptions{Key: "k"})
		require.True(t, first.Stored && !first.Duplicate)
		again := publishWith(t, s.hub, "h", msg("x", "1"), channels.PublishOptions{Key: "k"})
		require.True(t, again.Duplicate)
		require.Equal(t, first.Position, again.Position)
		require.Zero(t, again.Receivers)
	})
}

// Each message makes a frame: one byte more would take 16 more, on every channel.
func TestFrameFitsIntoItsSizeClass(t *testing.T) {
	require.LessOrEqual(t, channels.FrameSize, uintptr(192))
	require.LessOrEqual(t, channels.TinyFrameSize, uintptr(256), "Go allocates in such sizes")
	require.LessOrEqual(t, channels.ShortFrameSize, uintptr(384))
}

// One field more, and each channel would take 64 bytes more, and begin in the middle of a
// cache line.
func TestChannelFitsIntoItsSizeClass(t *testing.T) {
	require.LessOrEqual(t, channels.ChannelSize, uintptr(512))
	require.LessOrEqual(t, channels.ChannelHead, uintptr(64), "what a publish needs first")
}
