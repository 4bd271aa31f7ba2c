package channels_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

func TestOnPublishChangesMessages(t *testing.T) {
	kept := make(chan []byte, 1)
	s := serve(t, channels.Options{Channel: keeps, MaxMessageBytes: 1024, OnPublish: func(_ context.Context, p *channels.Publication) error {
		switch p.Message.Header {
		case "header":
			p.Message.Header = "changed"
		case "body":
			p.Message.Body = json.RawMessage("{\n\"by\":\r\n\"hook\"}")
		case "in place":
			copy(p.Message.Body, `"X"`)
		case "channel":
			p.Channel = "elsewhere"
		case "keep":
			kept <- p.Message.Body
			p.Message.Body = p.Message.Body[:3]
		case "reserved":
			p.Message.Header = "exchange"
		case "empty":
			p.Message.Header = ""
		case "broken":
			p.Message.Body = json.RawMessage(`{`)
		case "nothing":
			p.Message.Body = nil
		case "wrong UTF-8":
			p.Message.Body = json.RawMessage("\"\xff\"")
		case "long":
			p.Message.Body = json.RawMessage(`"` + long(1023) + `"`)
		case "deep":
			p.Message.Body = json.RawMessage(deep(501))
		case "position":
			p.Message.Position = channels.Position{Epoch: "forged", Offset: 99}
		case "plain error":
			return errors.New("secret")
		case "own error":
			return &channels.Error{Code: "spam", Message: "say something else", Status: 422}
		}
		return nil
	}})
	w, h, elsewhere := s.join("a", ""), s.join("h", ""), s.join("elsewhere", "")
	for _, c := range []struct{ header, wantHeader, wantBody, code string }{
		{"untouched", "untouched", `"b"`, ""},
		{"header", "changed", `"b"`, ""},
		{"body", "body", `{"by":"hook"}`, ""},
		{"in place", "in place", `"X"`, ""},
		{"channel", "channel", `"b"`, ""}, // it was authorised for this one
		{"position", "position", `"b"`, ""},
		{"reserved", "", "", "reserved_header"},
		{"empty", "", "", "bad_message"},
		{"broken", "", "", "bad_message"},
		{"nothing", "", "", "bad_message"},
		{"wrong UTF-8", "", "", "bad_utf8"},
		{"long", "", "", "too_large"},
		{"deep", "", "", "bad_message"},
		{"plain error", "", "", "forbidden"},
		{"own error", "", "", "spam"},
		{"last", "last", `"b"`, ""},
	} {
		t.Run(c.header, func(t *testing.T) {
			text := `{"header":"` + c.header + `","body":"b"}`
			for _, to := range []struct {
				channel string
				w       *wsClient
			}{{"a", w}, {"h", h}} {
				a := s.post("/v1/channel/"+to.channel+"/publish", text)
				to.w.send(text)
				if c.code != "" {
					require.Equal(t, c.code, a.code(), a.body)
					require.NotContains(t, a.body, "secret")
					require.Equal(t, c.code, to.w.next().ErrorCode())
					continue
				}
				require.Equal(t, 200, a.status, a.body)
				to.w.want(c.wantHeader, c.wantBody)
				m := to.w.want(c.wantHeader, c.wantBody)
				require.NotEqual(t, "forged", m.Epoch)
				to.w.wantExchange(m)
			}
		})
	}
	_, err := s.hub.Publish(t.Context(), "a", msg("plain error", "1"))
	require.EqualError(t, err, "secret", "the app's own code gets the hook's own error")
	t.Run("what the hook keeps is not what was published", func(t *testing.T) {
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
	for name, c := range map[string]struct {
		channel string
		o       channels.PublishOptions
		err     error
	}{
		"a key without history":          {"a", channels.PublishOptions{Key: "k"}, channels.ErrNoHistory},
		"a key, but not to be stored":    {"h", channels.PublishOptions{Key: "k", Local: true}, channels.ErrNoHistory},
		"a key with a space":             {"h", channels.PublishOptions{Key: "a b"}, channels.ErrBadKey},
		"a key that is too long":         {"h", channels.PublishOptions{Key: long(201)}, channels.ErrBadKey},
		"a key that is not ASCII":        {"h", channels.PublishOptions{Key: "é"}, channels.ErrBadKey},
		"a key with a control character": {"h", channels.PublishOptions{Key: "a\n"}, channels.ErrBadKey},
	} {
		_, err := s.hub.PublishWith(t.Context(), c.channel, msg("x", "1"), c.o)
		require.ErrorIs(t, err, c.err, name)
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
