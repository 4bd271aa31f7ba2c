package fanout

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// An event is what a browser makes of a block.
type event struct{ id, name, data string }

// events reads a stream as the HTML standard says (section 9.2.6).
func events(stream string) (all []event) {
	stream = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(stream)
	var e event
	id, data := "", ""
	lines := strings.Split(stream, "\n")
	for _, line := range lines[:len(lines)-1] { // what has no end is no line
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if e.id = id; data != "" {
				e.data = strings.TrimSuffix(data, "\n")
				if e.name == "" {
					e.name = "message"
				}
				all = append(all, e)
			}
			e, data = event{}, ""
		case field == "event":
			e.name = value
		case field == "data":
			data += value + "\n"
		case field == "id" && !strings.Contains(value, "\x00"):
			id = value
		}
	}
	return all
}

// said is a frame as servers make it.
func said(header, body string, more string) *Frame {
	h, _ := json.Marshal(header)
	return text(nil, Said, `{"header":`+string(h)+`,"body":`+body+more+`}`)
}

func TestNamedEvents(t *testing.T) {
	for _, c := range []struct{ header, body, want string }{
		{"card", `"<p>one</p>"`, "event: card\ndata: <p>one</p>\n\n"},
		{"card", `"one\ntwo\r\n\rthree\n"`, "event: card\ndata: one\ndata: two\ndata: \ndata: three\ndata: \n\n"},
		{"card", `"\u003cb\u003e\t\u0000\u2028"`, "event: card\ndata: <b>\t\x00\u2028\n\n"},
		{"empty", `""`, "event: empty\ndata: \n\n"},
		{"n", `1`, "event: n\ndata: 1\n\n"},
		{"n", `null`, "event: n\ndata: null\n\n"},
		{"n", `{"body":"no","header":"\n","a":[" "]}`, "event: n\ndata: {\"body\":\"no\",\"header\":\"\\n\",\"a\":[\"\\u2028\"]}\n\n"},
		{"message", `1`, "data: 1\n\n"},
		{"open", `1`, "data: 1\n\n"},
		{"error", `{"code":"c"}`, "event: error\ndata: {\"code\":\"c\"}\n\n"},
		{"a\ndata: x", `1`, "data: 1\n\n"},
		{"a\u2028id: x", `1`, "data: 1\n\n"},
		{"a\x00", `1`, "data: 1\n\n"},
		{" a:b ", `1`, "event:  a:b \ndata: 1\n\n"},
		{"grüße", `1`, "event: grüße\ndata: 1\n\n"},
	} {
		require.Equal(t, c.want, string(said(c.header, c.body, "").Bytes(Named)), "%q", c.header)
	}
	require.Equal(t, "id: e:1\nevent: h\ndata: 1\n\n", string(withValue(said("h", `1`, `,"offset":1,"epoch":"e"`), place("e:1")).Bytes(Named)))
	require.Equal(t, "event: h\ndata: 1\n\n", string(text(nil, Said, `{"channel":"c","header":"h","body":1}`).Bytes(Named)), "of a pattern")
	require.Equal(t, "data: x\n\n", string(text(nil, Said, "x").Bytes(Named)))
	require.Equal(t, "id: p\n\n", string((&Frame{Kind: Place, Value: place("p")}).Bytes(Named)))
	require.Equal(t, ":\n", string(Ping.Bytes(Named)))
	require.Empty(t, NewClose(1000, "").Bytes(Named))
	require.Equal(t, "event: ping\ndata: 5\n\n", string(NewHeartbeat("ping", []byte(`{"header":"ping","body":5}`)).Bytes(Named)))
	f := said("h", `"x"`, "")
	require.Same(t, &f.Bytes(Named)[0], &f.Bytes(Named)[0], "encoded once")
	require.Equal(t, "data: {\"header\":\"h\",\"body\":\"x\"}\n\n", string(f.Bytes(SSE)))
}

// Messages are their bodies alone; what the server itself says stays as it is.
func TestBodies(t *testing.T) {
	e := New(Config{QueueBytes: 1 << 20, CompressBytes: 100})
	g := e.Group()
	message := func(body string) *Frame {
		return withValue(text(&g, Message, `{"header":"h","body":`+body+`,"offset":1,"epoch":"e"}`), place("e:1"))
	}
	for _, n := range []int{1, 50, 125, 126, 0x10000} {
		body := `"` + strings.Repeat("x", n) + `"`
		f := message(body)
		first, got := payload(t, f.Bytes(Bodies))
		require.EqualValues(t, opText, first)
		require.Equal(t, body, string(got))
		require.Equal(t, "id: e:1\ndata: "+body+"\n\n", string(f.Bytes(BodyEvents)))
		first, got = payload(t, f.Bytes(BodiesDeflate))
		if len(body) < 100 {
			require.Equal(t, f.Bytes(Bodies), f.Bytes(BodiesDeflate))
			continue
		}
		require.EqualValues(t, opText|rsv1, first)
		plain, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(got), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
		require.NoError(t, err)
		require.Equal(t, body, string(plain))
		require.Same(t, &f.Bytes(BodiesDeflate)[0], &f.Bytes(BodiesDeflate)[0], "encoded once")
	}
	for _, f := range []*Frame{said("error", `{"code":"c"}`, ""), text(&g, Event, `{"header":"presence","body":1}`), Ping, NewClose(1000, "x"), NewHeartbeat("ping", []byte(`{"header":"ping","body":1}`))} {
		require.Equal(t, f.Bytes(WebSocket), f.Bytes(Bodies))
		require.Equal(t, f.Bytes(Deflate), f.Bytes(BodiesDeflate))
		require.Equal(t, f.Bytes(SSE), f.Bytes(BodyEvents))
	}
}

func withValue(f *Frame, v Value) *Frame {
	f.Value = v
	return f
}

// FuzzNamed: whatever is published, a browser makes exactly one event of it, which has
// the text, or the JSON.
func FuzzNamed(f *testing.F) {
	for _, header := range []string{"h", "message", "open", "a\nb", "\u2028", ":", " x"} {
		for _, body := range []string{"", "text", "\n", "\r\n\r", "data: x\n\nevent: y", "\x00\ufeff\u2028"} {
			f.Add(header, body)
		}
	}
	f.Fuzz(func(t *testing.T, header, body string) {
		if header == "" || len(header) > 1024 { // which no message has
			return
		}
		asText, _ := json.Marshal(body)
		var decoded, name string
		require.NoError(t, json.Unmarshal(asText, &decoded))
		h, _ := json.Marshal(header)
		require.NoError(t, json.Unmarshal(h, &name))
		if name == "open" || strings.ContainsAny(name, "\x00\x01\x02\x03\x04\x05\x06\a\b\t\n\v\f\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\u0085\u2028\u2029") {
			name = "message"
		}
		lines := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(decoded)
		require.Equal(t, []event{{"p", name, lines}}, events(string(withValue(said(header, string(asText), ""), place("p")).Bytes(Named))))

		got := events(string(said(header, `[`+string(asText)+`]`, "").Bytes(Named)))
		require.Len(t, got, 1)
		require.Equal(t, name, got[0].name)
		require.JSONEq(t, `[`+string(asText)+`]`, got[0].data)
	})
}
