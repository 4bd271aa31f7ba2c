package channels_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// outcome is what a publish with a key came to: the code of a refusal or "ok", the
// offset, and whether it was a duplicate.
type outcome struct {
	code   string
	offset any
	dup    bool
}

// doors are the ways to publish on the channel "h" with a key.
func doors(t *testing.T, s *server, user string) map[string]func(header, body, key string) outcome {
	of := func(result map[string]any) outcome {
		if e, ok := result["error"].(map[string]any); ok {
			return outcome{code: e["code"].(string)}
		}
		return outcome{"ok", result["offset"], result["duplicate"] == true}
	}
	const text = `{"header":%q,"body":%s,%q:%q}`
	post := func(name string) func(header, body, key string) outcome {
		return func(header, body, key string) outcome {
			return of(s.post("/v1/channel/h/publish", fmt.Sprintf(text, header, body, name, key), "X-User", user).json)
		}
	}
	many := func(form string) func(header, body, key string) outcome {
		return func(header, body, key string) outcome {
			a := s.post("/v1/publish", fmt.Sprintf(form, header, body, key), "X-User", user)
			require.Equal(t, 200, a.status, a.body)
			return of(a.json["results"].([]any)[0].(map[string]any))
		}
	}
	return map[string]func(header, body, key string) outcome{
		"the header": func(header, body, key string) outcome {
			return of(s.post("/v1/channel/h/publish", fmt.Sprintf(`{"header":%q,"body":%s}`, header, body), "Idempotency-Key", key, "X-User", user).json)
		},
		"key in the body":             post("key"),
		"idempotency_key in the body": post("idempotency_key"),
		"messages":                    many(`{"messages":[{"channel":"h","header":%q,"body":%s,"key":%q}]}`),
		"messages, the longer name":   many(`{"messages":[{"channel":"h","header":%q,"body":%s,"idempotency_key":%q}]}`),
		"channels":                    many(`{"channels":["h"],"header":%q,"body":%s,"key":%q}`),
		"a WebSocket": func(header, body, key string) outcome {
			w := s.joinAs("h", "X-User", user)
			defer w.c.CloseNow()
			w.send(fmt.Sprintf(text, header, body, "idempotency_key", key))
			m := w.next()
			if m.Header == header {
				m = w.next() // the answer follows the message itself
			}
			if m.Header == "error" {
				return outcome{code: m.ErrorCode()}
			}
			require.Equal(t, "exchange", m.Header)
			return of(decoded(t, m.Body).(map[string]any))
		},
	}
}

// A key that was used for another message is refused, and a repeat says that it
// is one, at every door and from any of them to any other.
func TestKeysAtEveryDoor(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps}, asUser)
	n := 0.0
	for first, publish := range doors(t, s, "ann") {
		n++
		key := fmt.Sprint("k", n)
		require.Equal(t, outcome{"ok", n, false}, publish("x", `{"a":1}`, key), first)
		for second, again := range doors(t, s, "ann") {
			require.Equal(t, outcome{"ok", n, true}, again("x", `{"a":1}`, key), "%s, %s", first, second)
			reused := outcome{code: "key_reused"}
			require.Equal(t, reused, again("x", `{"a":2}`, key), "%s, %s: another body", first, second)
			require.Equal(t, reused, again("y", `{"a":1}`, key), "%s, %s: another header", first, second)
		}
	}
}

// A key belongs to who publishes with it: nobody swallows another's message.
func TestKeysBelongToWhoPublishes(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps}, asUser)
	n := 0.0
	users := []string{"ann", "bob", "", "app:", "anyone:", "user:ann", strings.Repeat("ann", 1000), "apikey:billing"}
	for i, user := range users {
		for _, repeat := range []bool{false, true} {
			if !repeat {
				n++
			}
			require.Equal(t, outcome{"ok", n, repeat}, doors(t, s, user)["the header"]("x", fmt.Sprint(i), "k"), user)
		}
	}
	ctx := channels.WithIdentity(t.Context(), channels.Identity{ID: "ann"})
	for _, ctx := range []context.Context{t.Context(), ctx} {
		res, err := s.hub.PublishWith(ctx, "h", msg("x", `"app"`), channels.PublishOptions{Key: "k"})
		require.NoError(t, err, "the app's own code is one of its own")
		require.EqualValues(t, n+1, res.Position.Offset)
	}
	_, err := s.hub.PublishWith(ctx, "h", msg("x", `"another"`), channels.PublishOptions{Key: "k"})
	require.ErrorIs(t, err, channels.ErrKeyReused)
}

// What OnPublish makes of a message does not make its repeat another one.
func TestAKeyIsOfWhatWasSent(t *testing.T) {
	n := 0
	s := serve(t, channels.Options{Channel: keeps, OnPublish: func(_ context.Context, p *channels.Publication) error {
		n++
		p.Message.Header, p.Message.Body = "changed", fmt.Append(nil, n)
		return nil
	}})
	for i := range 3 {
		a := s.post("/v1/channel/h/publish", `{"header":"x","body":1,"key":"k"}`)
		require.Equal(t, 200, a.status, a.body)
		require.Equal(t, i > 0, a.json["duplicate"] == true)
	}
}

// A key that would be ignored is refused.
func TestKeysThatWouldBeIgnored(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	for name, c := range map[string]struct{ path, body, header, code string }{
		"header and body":         {"channel/h/publish", `{"header":"x","body":1,"key":"a"}`, "a", "bad_idempotency_key"},
		"both names":              {"channel/h/publish", `{"header":"x","body":1,"key":"a","idempotency_key":"a"}`, "", "bad_idempotency_key"},
		"beside messages":         {"publish", `{"messages":[{"channel":"h","header":"x","body":1}],"key":"a"}`, "", "bad_message"},
		"header of a batch":       {"publish", `{"channels":["h"],"header":"x","body":1}`, "a", "bad_idempotency_key"},
		"no history":              {"channel/one/publish", `{"header":"x","body":1,"key":"a"}`, "", "no_history"},
		"empty":                   {"channel/h/publish", `{"header":"x","body":1,"key":""}`, "", "bad_idempotency_key"},
		"a number":                {"channel/h/publish", `{"header":"x","body":1,"idempotency_key":5}`, "", "bad_message"},
		"null is none":            {"channel/h/publish", `{"header":"x","body":1,"key":null}`, "", ""},
		"another case is no name": {"channel/h/publish", `{"header":"x","body":1,"KEY":5}`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var header []string
			if c.header != "" {
				header = []string{"Idempotency-Key", c.header}
			}
			a := s.post("/v1/"+c.path, c.body, header...)
			if c.code == "" {
				require.Equal(t, 200, a.status, a.body)
				return
			}
			a.wantFail(t, 400, c.code)
		})
	}
}

// A filter in front of the hub reads the same channels as the hub.
func TestNamesInABatchAreExact(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	for body, want := range map[string]string{
		`{"channels":["h2"],"CHANNELS":["h3"],"header":"x","body":1}`:                  "h2 ok",
		`{"messages":[{"channel":"h2","Channel":"h4","header":"x","body":1}]}`:         "h2 ok",
		`{"messages":[{"channel":"h2","channel":"h4","header":"x","body":1}]}`:         "h4 bad_message",
		`{"messages":[{"Channel":"h4","header":"x","body":1}]}`:                        " bad_channel",
		`{"messages":[{"channel":"h2","header":"x","body":1}],"MESSAGES":[],"Key":""}`: "h2 ok",
	} {
		a := s.post("/v1/publish", body)
		require.Equal(t, []string{want}, outcomes(t, a), body)
	}
	s.post("/v1/publish", `{"channels":["h2"],"channels":["h3"],"header":"x","body":1}`).wantFail(t, 400, "bad_message")
	s.post("/v1/publish", `{"Channels":["h2"],"header":"x","body":1}`).wantFail(t, 400, "bad_message")
	require.Empty(t, s.get("/v1/channel/h4/history").json["data"])
}
