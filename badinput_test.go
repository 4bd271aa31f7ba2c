package channels_test

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
)

// deep is JSON that nests n levels deep.
func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

// maxMessage is the limit in the tests below.
const maxMessage = 4096

// badInput lists what is sent as a message and what becomes of it, which is the same
// over a WebSocket and over HTTP.
var badInput = []struct {
	name, text string
	code       string // "" where it is accepted
	header     string // else "x"
	body       string // what subscribers get
}{
	// Broken.
	{name: "nothing", code: "bad_json"},
	{name: "a space", text: " ", code: "bad_json"},
	{name: "cut off", text: `{"header":"x","body":`, code: "bad_json"},
	{name: "cut off in a string", text: `{"header":"x","body":"`, code: "bad_json"},
	{name: "no comma", text: `{"header":"x" "body":1}`, code: "bad_json"},
	{name: "a comma too many", text: `{"header":"x","body":1,}`, code: "bad_json"},
	{name: "single quotes", text: `{'header':'x','body':1}`, code: "bad_json"},
	{name: "bare keys", text: `{header:"x",body:1}`, code: "bad_json"},
	{name: "a comment", text: `{"header":"x","body":1}//`, code: "bad_json"},
	{name: "two messages", text: `{"header":"x","body":1}{"header":"x","body":2}`, code: "bad_json"},
	{name: "a byte order mark", text: "\ufeff" + `{"header":"x","body":1}`, code: "bad_json"},
	{name: "a zero byte", text: `{"header":"x","body":1}` + "\x00", code: "bad_json"},
	{name: "NaN", text: `{"header":"x","body":NaN}`, code: "bad_json"},
	{name: "Infinity", text: `{"header":"x","body":-Infinity}`, code: "bad_json"},
	{name: "a leading zero", text: `{"header":"x","body":01}`, code: "bad_json"},
	{name: "a plus sign", text: `{"header":"x","body":+1}`, code: "bad_json"},
	{name: "hex", text: `{"header":"x","body":0x10}`, code: "bad_json"},
	{name: "a control character in a string", text: `{"header":"x","body":"` + "\x01" + `"}`, code: "bad_json"},
	{name: "a line end in a string", text: `{"header":"x","body":"` + "\n" + `"}`, code: "bad_json"},
	{name: "a bad escape", text: `{"header":"x","body":"\x41"}`, code: "bad_json"},
	{name: "half an escape", text: `{"header":"x","body":"\u12"}`, code: "bad_json"},
	{name: "a form", text: `header=x&body=1`, code: "bad_json"},
	// Of the wrong type.
	{name: "an array", text: `["x",1]`, code: "bad_message"},
	{name: "a string", text: `"x"`, code: "bad_message"},
	{name: "a number", text: `5`, code: "bad_message"},
	{name: "null", text: `null`, code: "bad_message"},
	{name: "an empty object", text: `{}`, code: "bad_message"},
	{name: "no header", text: `{"body":1}`, code: "bad_message"},
	{name: "a null header", text: `{"header":null,"body":1}`, code: "bad_message"},
	{name: "a number for a header", text: `{"header":1,"body":1}`, code: "bad_message"},
	{name: "an array for a header", text: `{"header":["x"],"body":1}`, code: "bad_message"},
	{name: "an object for a header", text: `{"header":{},"body":1}`, code: "bad_message"},
	{name: "an empty header", text: `{"header":"","body":1}`, code: "bad_message"},
	{name: "no body", text: `{"header":"x"}`, code: "bad_message"},
	// Any JSON is a body.
	{name: "a null body", text: `{"header":"x","body":null}`, body: `null`},
	{name: "a false body", text: `{"header":"x","body":false}`, body: `false`},
	{name: "an empty string", text: `{"header":"x","body":""}`, body: `""`},
	{name: "an empty array", text: `{"header":"x","body":[]}`, body: `[]`},
	{name: "an object", text: `{"header":"x","body":{"header":"y","body":{}}}`, body: `{"header":"y","body":{}}`},
	{name: "space around", text: "\r\n\t {\"header\" : \"x\" ,\t\"body\" : 1 } \n", body: `1`},
	{name: "body before header", text: `{"body":1,"header":"x"}`, body: `1`},
	// Numbers keep their digits, and strings their escapes.
	{name: "beyond float64", text: `{"header":"x","body":1e400}`, body: `1e400`},
	{name: "30 digits", text: `{"header":"x","body":123456789012345678901234567890}`, body: `123456789012345678901234567890`},
	{name: "minus zero", text: `{"header":"x","body":-0.0}`, body: `-0.0`},
	{name: "notation", text: `{"header":"x","body":[1E+2,1.50,0.1e-7]}`, body: `[1E+2,1.50,0.1e-7]`},
	{name: "escapes", text: `{"header":"x","body":"\u0041\/\u2028<&>"}`, body: `"\u0041\/\u2028<&>"`},
	{name: "lone surrogates", text: `{"header":"x","body":["\ud800","\udc00\ud800"]}`, body: `["\ud800","\udc00\ud800"]`},
	{name: "a lone surrogate in the header", text: `{"header":"\ud800","body":1}`, header: "\ufffd", body: `1`},
	{name: "a pair of surrogates in the header", text: `{"header":"\ud83d\ude42","body":"\ud83d\ude42"}`, header: "🙂", body: `"\ud83d\ude42"`},
	{name: "U+0000", text: `{"header":"a\u0000b","body":"\u0000"}`, header: "a\x00b", body: `"\u0000"`},
	{name: "beyond ASCII", text: `{"header":"한국","body":"é🙂"}`, header: "한국", body: `"é🙂"`},
	// Lines: server-sent events end at a line's end.
	{name: "lines", text: "{\"header\":\"x\",\"body\":{\r\n\t\"a\":\n[1 ,\r2]}}", body: `{"a":[1,2]}`},
	{name: "spaces on one line stay", text: `{"header":"x","body":{ "a" : 1 }}`, body: `{ "a" : 1 }`},
	// Keys.
	{name: "a key twice", text: `{"header":"a","body":1,"header":"b","body":2}`, code: "bad_message"},
	{name: "a key twice, once escaped", text: `{"header":"a","body":1,"\u0062ody":2}`, code: "bad_message"},
	{name: "an unknown key twice", text: `{"header":"a","body":1,"y":1,"y":2}`, code: "bad_message"},
	{name: "a key twice among many", text: `{"header":"a","body":1,"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1,"10":1,"9":1}`, code: "bad_message"},
	{name: "many unknown keys", text: `{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1,"10":1,"header":"x","body":{"1":1}}`, body: `{"1":1}`},
	{name: "an escaped key", text: `{"h\u0065ader":"x","body":1}`, body: `1`},
	{name: "keys in another case", text: `{"Header":"a","BODY":1}`, code: "bad_message"},
	{name: "keys in another case beside", text: `{"header":"x","body":1,"HEADER":"b","bOdy":2,"Key":5,"ID":{},"Id":[]}`, body: `1`},
	{name: "keys that fold to others", text: `{"header":"x","body":1,"\u212aey":5}`, body: `1`}, // the Kelvin sign is a k for EqualFold
	{name: "a key twice, once null", text: `{"header":"a","body":1,"header":null}`, code: "bad_message"},
	{name: "unknown keys", text: `{"header":"x","body":1,"offset":9,"epoch":"e","sender":{},"":[]}`, body: `1`},
	{name: "a key twice in the body", text: `{"header":"x","body":{"a":1,"a":2}}`, body: `{"a":1,"a":2}`},
	// Headers.
	{name: "reserved error", text: `{"header":"error","body":1}`, code: "reserved_header"},
	{name: "reserved exchange", text: `{"header":"exchange","body":1}`, code: "reserved_header"},
	{name: "reserved reset", text: `{"header":"reset","body":1}`, code: "reserved_header"},
	{name: "reserved reconnect", text: `{"header":"reconnect","body":1}`, code: "reserved_header"},
	{name: "reserved presence", text: `{"header":"presence","body":1}`, code: "reserved_header"},
	{name: "reserved, escaped", text: `{"header":"\u0065rror","body":1}`, code: "reserved_header"},
	{name: "nearly reserved", text: `{"header":"Error","body":1}`, header: "Error", body: `1`},
	{name: "the longest header", text: `{"header":"` + long(1024) + `","body":1}`, header: long(1024), body: `1`},
	{name: "the longest header, escaped", text: `{"header":"` + strings.Repeat(`\u0078`, 1024) + `","body":1}`, header: long(1024), body: `1`},
	{name: "a longer header", text: `{"header":"` + long(1025) + `","body":1}`, code: "bad_message"},
	{name: "a longer header in bytes", text: `{"header":"` + strings.Repeat("한", 342) + `","body":1}`, code: "bad_message"},
	// Depth.
	{name: "500 deep", text: `{"header":"x","body":` + deep(500) + `}`, body: deep(500)},
	{name: "501 deep", text: `{"header":"x","body":` + deep(501) + `}`, code: "bad_message"},
	{name: "501 deep, objects", text: `{"header":"x","body":` + strings.Repeat(`{"":`, 501) + `1` + strings.Repeat(`}`, 501) + `}`, code: "bad_message"},
	{name: "wide, not deep", text: `{"header":"x","body":[` + strings.Repeat(`[],`, 600) + `1]}`, body: `[` + strings.Repeat(`[],`, 600) + `1]`},
	{name: "brackets in a string", text: `{"header":"x","body":"\"` + strings.Repeat(`[`, 600) + `"}`, body: `"\"` + strings.Repeat(`[`, 600) + `"`},
	{name: "a backslash before a quote", text: `{"header":"x","body":["\\",` + deep(499) + `]}`, body: `["\\",` + deep(499) + `]`},
	{name: "deep in an unknown key", text: `{"header":"x","body":1,"y":` + deep(501) + `}`, body: `1`},
	// Length.
	{name: "the longest body", text: `{"header":"x","body":"` + long(maxMessage-2) + `"}`, body: `"` + long(maxMessage-2) + `"`},
	{name: "a longer body", text: `{"header":"x","body":"` + long(maxMessage-1) + `"}`, code: "too_large"},
	{name: "the longest of both", text: `{"header":"` + strings.Repeat(`\u0078`, 1024) + `","body":"` + long(maxMessage-2) + `"}`, header: long(1024), body: `"` + long(maxMessage-2) + `"`},
}

func TestBadInputOverWebSocketAndHTTP(t *testing.T) {
	s := serve(t, channels.Options{MaxMessageBytes: maxMessage})
	w, listener, events := s.join("a", ""), s.join("a", ""), s.stream("a", "")
	defer events.close()
	for _, c := range badInput {
		if c.header == "" {
			c.header = "x"
		}
		// arrived wants what was accepted, and nothing of what was refused.
		arrived := func(t *testing.T) {
			if c.code != "" {
				s.publish("a", "mark", `0`)
				w.want("mark", `0`)
				listener.want("mark", `0`)
				events.want("mark", `0`)
				return
			}
			m := listener.want(c.header, c.body)
			ev := events.want(c.header, c.body)
			require.Equal(t, 1, ev.lines)
			require.Empty(t, m.ID)
		}
		t.Run(c.name+"/WebSocket", func(t *testing.T) {
			w.send(c.text)
			if c.code != "" {
				m := w.next()
				require.Equal(t, "error", m.Header, string(m.Body))
				require.Equal(t, c.code, m.ErrorCode(), string(m.Body))
				require.ElementsMatch(t, []string{"code", "msg"}, keysOf(decoded(t, m.Body)))
			} else {
				w.want(c.header, c.body)
				w.want("exchange", `{"msg":"ok"}`)
			}
			arrived(t)
		})
		t.Run(c.name+"/HTTP", func(t *testing.T) {
			a := s.post("/v1/channel/a/publish", c.text)
			switch c.code {
			case "":
				a.wantOK(t, `{"status":"ok"}`)
				w.want(c.header, c.body)
			case "too_large":
				a.wantFail(t, 413, c.code)
			default:
				a.wantFail(t, 400, c.code)
			}
			arrived(t)
		})
	}
}

func decoded(t *testing.T, b []byte) (v any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(b, &v))
	return v
}

// A stored body comes back as it was sent, in the history and when a client resumes.
func TestBodiesKeepTheirFormInHistory(t *testing.T) {
	s := serve(t, channels.Options{MaxMessageBytes: maxMessage, Channel: keep(100)})
	var want []string
	for _, c := range badInput {
		if c.code == "" {
			require.Equal(t, 200, s.post("/v1/channel/a/publish", c.text).status)
			want = append(want, c.body)
		}
	}
	resp, err := s.http.Client().Get(s.http.URL + "/v1/channel/a/history?limit=1000")
	require.NoError(t, err)
	defer resp.Body.Close()
	var page struct {
		Data []struct{ Body json.RawMessage }
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&page))
	require.Len(t, page.Data, len(want))
	w := s.join("a", "?since=:0")
	for i, body := range want {
		require.Equal(t, body, string(w.next().Body))
		// The page is JSON that encoding/json wrote: no spaces, and safe
		// within HTML. Apart from that, it is the same.
		var compact, safe bytes.Buffer
		require.NoError(t, json.Compact(&compact, []byte(body)))
		json.HTMLEscape(&safe, compact.Bytes())
		require.Equal(t, safe.String(), string(page.Data[i].Body))
	}
}

// The body nests deeper than encoding/json goes.
func TestMuchTooDeep(t *testing.T) {
	s := serve(t, channels.Options{})
	w := s.join("a", "")
	for _, text := range []string{
		`{"header":"x","body":` + deep(100_000) + `}`,
		`{"header":"x","body":` + strings.Repeat("[", 200_000),
		`{"header":` + deep(100_000) + `,"body":1}`,
		deep(100_000),
	} {
		w.send(text)
		m := w.next()
		require.Equal(t, "error", m.Header)
		require.Contains(t, []string{"bad_json", "bad_message"}, m.ErrorCode())
		a := s.post("/v1/channel/a/publish", text)
		a.wantFail(t, 400, m.ErrorCode())
	}
}

func TestWrongUTF8(t *testing.T) {
	s := serve(t, channels.Options{})
	for name, text := range map[string]string{
		"in the body":          "{\"header\":\"x\",\"body\":\"\xff\"}",
		"in the header":        "{\"header\":\"\xff\",\"body\":1}",
		"in a key":             "{\"\xff\":1,\"header\":\"x\",\"body\":1}",
		"a surrogate":          "{\"header\":\"x\",\"body\":\"\xed\xa0\x80\"}",
		"an overlong slash":    "{\"header\":\"x\",\"body\":\"\xc0\xaf\"}",
		"half a character":     "{\"header\":\"x\",\"body\":\"\xed\x95\"}",
		"beyond Unicode":       "{\"header\":\"x\",\"body\":\"\xf4\x90\x80\x80\"}",
		"in what is no JSON":   "\xff",
		"Latin-1":              "{\"header\":\"x\",\"body\":\"\xe9\"}",
		"UTF-16, with its BOM": "\xff\xfe{\x00}\x00",
	} {
		t.Run(name, func(t *testing.T) {
			s.post("/v1/channel/a/publish", text).wantFail(t, 400, "bad_utf8")
			w := s.join("a", "")
			w.send(text)
			w.wantClose(websocket.StatusInvalidFramePayloadData)
		})
	}
	t.Run("a character split over two frames is right", func(t *testing.T) {
		w := s.join("a", "")
		c := s.upgrade("/channel/a/")
		c.Send(wsFrame(opText, "{\"header\":\"x\",\"body\":\"\xed") + wsFrame(finBit, "\x95\x9c\"}"))
		w.want("x", `"한"`)
	})
	require.Zero(t, strings.Count(s.log.String(), "panic"))
}

// Input that is longer than any message is neither read to its end nor kept in memory.
func TestOversized(t *testing.T) {
	s := serve(t, channels.Options{MaxMessageBytes: maxMessage})
	huge := `{"header":"x","body":"` + long(2<<20) + `"}`
	s.post("/v1/channel/a/publish", huge).wantFail(t, 413, "too_large")
	t.Run("HTTP in chunks", func(t *testing.T) {
		c := s.dialRaw()
		a := c.ask(fmt.Sprintf("POST /v1/channel/a/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s", len(huge), huge[:64<<10]))
		a.wantFail(t, 413, "too_large")
	})
	t.Run("WebSocket", func(t *testing.T) {
		w := s.join("a", "")
		w.send(huge)
		w.wantClose(websocket.StatusMessageTooBig)
	})
	for name, frames := range map[string]string{
		"in fragments": func() string {
			f := wsFrame(opText, huge[:1000])
			for i := range 20 {
				f += wsFrame(0, huge[1000*i:1000*(i+1)])
			}
			return f
		}(),
		"the first part of a very long one":   frameHeader(rawText, 0x80, 1<<40) + "mask" + long(maxMessage+8<<10),
		"of empty fragments with a large one": wsFrame(opText, "") + strings.Repeat(wsFrame(0, ""), 1000) + wsFrame(finBit, long(maxMessage+8<<10)),
		"binary":                              wsFrame(finBit|opBinary, long(maxMessage+8<<10)),
	} {
		t.Run(name, func(t *testing.T) {
			c := s.upgrade("/channel/a/")
			c.Send(frames)
			c.WantClosed(1009)
		})
	}
	t.Run("deflated", func(t *testing.T) { // a bomb: 1 MB in 1 kB
		c := s.upgrade("/channel/a/", "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover")
		c.Send(wsFrame(finBit|rsv1Bit|opText, hubtest.Deflated(long(1<<20), flate.BestCompression)))
		c.WantClosed(1009)
	})
	until(t, "all have left", func() bool { return s.hub.Stats().Connections == 0 })
}

func TestBinaryFramesAreRefused(t *testing.T) {
	s := serve(t, channels.Options{})
	w := s.join("a", "")
	c := s.upgrade("/channel/a/")
	ok := `{"header":"x","body":1,"id":7}`
	for name, frames := range map[string]string{
		"a message":    wsFrame(finBit|opBinary, ok),
		"empty":        wsFrame(finBit|opBinary, ""),
		"in fragments": wsFrame(opBinary, ok[:5]) + wsFrame(rawPing, "p") + wsFrame(finBit, ok[5:]),
		"wrong UTF-8":  wsFrame(finBit|opBinary, "\xff\xfe"),
	} {
		t.Run(name, func(t *testing.T) {
			c.Send(frames)
			m := c.Message()
			require.Equal(t, "error", m.Header)
			require.Equal(t, "binary", m.ErrorCode())
			require.Nil(t, m.ID)
		})
	}
	c.Send(wsFrame(rawText, ok))
	require.Equal(t, "x", c.Message().Header)
	require.Equal(t, json.RawMessage("7"), c.Message().ID)
	w.want("x", `1`) // and none of the binary ones
}

func TestFragmentedMessages(t *testing.T) {
	s := serve(t, channels.Options{})
	c := s.upgrade("/channel/a/")
	whole := `{"header":"x","body":"` + long(300) + `"}`
	frames := wsFrame(opText, "")
	for i, b := range []byte(whole) {
		frames += wsFrame(0, string(b))
		if i%50 == 0 {
			frames += wsFrame(rawPing, fmt.Sprint("ping ", i)) + wsFrame(rawPong, "not asked for")
		}
	}
	c.Send(frames + wsFrame(finBit, "") + wsFrame(rawPing, "last") + wsFrame(rawPing, ""))
	var texts []string
	var pongs []string
	for len(texts) < 2 || len(pongs) == 0 || pongs[len(pongs)-1] != "" {
		f, err := c.TryRead()
		require.NoError(t, err)
		switch f.First {
		case rawText:
			texts = append(texts, string(f.Payload))
		case rawPong:
			pongs = append(pongs, string(f.Payload))
		default:
			require.Fail(t, "a frame that nobody sends", "%#x %q", f.First, f.Payload)
		}
	}
	require.Equal(t, []string{whole, `{"header":"exchange","body":{"msg":"ok"}}`}, texts)
	for _, p := range pongs[:len(pongs)-1] {
		require.True(t, strings.HasPrefix(p, "ping ") || p == "last", p)
	}
}

func TestProtocolViolationsEndTheConnection(t *testing.T) {
	var mu sync.Mutex
	reasons := map[string]error{}
	s := serve(t, channels.Options{OnDisconnect: func(c channels.Client, reason error) {
		mu.Lock()
		defer mu.Unlock()
		if _, twice := reasons[c.ID]; twice {
			t.Errorf("OnDisconnect twice for %s", c.ID)
		}
		reasons[c.ID] = reason
	}})
	w := s.join("a", "")
	ok := `{"header":"x","body":1}`
	cases := map[string]struct {
		frames string
		code   int
	}{
		"unmasked":                      {string(frameHeader(rawText, 0, uint64(len(ok)))) + ok, 1002},
		"an unmasked ping":              {frameHeader(rawPing, 0, 0), 1002},
		"reserved bit 1":                {wsFrame(finBit|rsv1Bit|opText, ok), 1002},
		"reserved bit 2":                {wsFrame(finBit|0x20|opText, ok), 1002},
		"reserved bit 3":                {wsFrame(finBit|0x10|opText, ok), 1002},
		"reserved bits on a ping":       {wsFrame(finBit|rsv1Bit|opPing, ""), 1002},
		"an unknown opcode":             {wsFrame(finBit|0x3, ok), 1002},
		"an unknown control opcode":     {wsFrame(finBit|0xB, ""), 1002},
		"a continuation of nothing":     {wsFrame(finBit, ok), 1002},
		"a message within a message":    {wsFrame(opText, ok[:5]) + wsFrame(rawText, ok), 1002},
		"a fragmented ping":             {wsFrame(opPing, "a"), 1002},
		"a ping of 126 bytes":           {wsFrame(rawPing, long(126)), 1002},
		"a close frame of one byte":     {wsFrame(rawClose, "a"), 1002},
		"a close frame with code 1005":  {wsFrame(rawClose, "\x03\xed"), 1002},
		"a close frame with code 999":   {wsFrame(rawClose, "\x03\xe7"), 1002},
		"a negative length":             {frameHeader(rawText, 0x80, 1<<63) + "mask", 1002},
		"HTTP":                          {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1002},
		"zeros":                         {strings.Repeat("\x00", 100), 1002},
		"ones":                          {strings.Repeat("\xff", 100), 1002},
		"text that is not UTF-8":        {wsFrame(rawText, "\xff"), 1007},
		"not UTF-8 in a later fragment": {wsFrame(opText, ok[:5]) + wsFrame(finBit, "\xff"), 1007},
		"too long":                      {wsFrame(rawText, long(512<<10)), 1009},
	}
	for name, c := range cases {
		for _, before := range []string{"", "after a message "} {
			t.Run(before+name, func(t *testing.T) {
				conn := s.upgrade("/channel/a/")
				if before != "" {
					conn.Send(wsFrame(rawText, ok))
					w.want("x", `1`)
				}
				conn.Send(c.frames + wsFrame(rawText, ok)) // what follows is not read
				conn.WantClosed(c.code)
			})
		}
	}
	until(t, "all have left", func() bool { return s.hub.Stats().Connections == 1 })
	until(t, "the hook was told", func() bool { mu.Lock(); defer mu.Unlock(); return len(reasons) == 2*len(cases) })
	for _, reason := range reasons {
		require.Error(t, reason)
	}
	s.publish("a", "last", `1`)
	w.want("last", `1`)
	require.NotContains(t, s.log.String(), "panic")
}

// A client that closes properly gets its code back, and OnDisconnect gets no error.
func TestClientCloses(t *testing.T) {
	reasons := make(departures, 1)
	s := serve(t, channels.Options{OnDisconnect: reasons.hook})
	for name, payload := range map[string]string{
		"without a code": "", "normally": "\x03\xe8", "going away": "\x03\xe9", "with a reason": "\x03\xe8bye", "with a code of the app's": "\x0f\xa0x",
	} {
		t.Run(name, func(t *testing.T) {
			c := s.upgrade("/channel/a/")
			c.Send(wsFrame(rawClose, payload))
			f, err := c.Next()
			require.NoError(t, err)
			require.Equal(t, byte(rawClose), f.First)
			require.Equal(t, payload[:min(2, len(payload))], string(f.Payload[:min(2, len(f.Payload))]))
			_, err = c.BR.ReadByte() // the server closes first: RFC 6455 section 7.1.1
			require.ErrorIs(t, err, io.EOF)
			require.NoError(t, <-reasons)
			require.Zero(t, s.hub.Stats().Connections)
		})
	}
}

func TestClientVanishes(t *testing.T) {
	const trials = 20
	reasons := make(departures, 10+trials)
	s := serve(t, channels.Options{Channel: keeps, OnDisconnect: reasons.hook})
	for name, c := range map[string]struct {
		first string
		end   func(rawClient)
		isErr bool
	}{
		"at once":               {"", func(c rawClient) { c.Close() }, false},
		"half closed":           {"", func(c rawClient) { c.CloseWrite(); io.Copy(io.Discard, c.BR) }, false},
		"with a reset":          {"", func(c rawClient) { c.C.(*net.TCPConn).SetLinger(0); c.Close() }, true},
		"inside of a message":   {frameHeader(rawText, 0x80, 100) + "maskxxx", func(c rawClient) { c.Close() }, true},
		"between two fragments": {wsFrame(opText, `{"header":`), func(c rawClient) { c.Close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			conn := s.upgrade("/channel/p/")
			conn.Send(c.first)
			c.end(conn)
			reason := <-reasons
			require.Equal(t, c.isErr, reason != nil, "%v", reason)
			require.Zero(t, s.hub.Stats().Connections)
			s.get("/v1/channel/p/presence").wantOK(t, `{"data":[],"cnt":0}`)
		})
	}
	t.Run("before the handshake is answered", func(t *testing.T) {
		for range trials {
			c := s.dialRaw()
			c.Send(upgradeRequest("/channel/p/"))
			c.C.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
		// The server may still have to accept some. Shutdown waits for those that have
		// come so far.
		require.NoError(t, s.hub.Shutdown(t.Context()))
		require.Zero(t, s.hub.Stats().Connections)
	})
}

// A message that a client sends in the same packet as its handshake is published.
func TestFramesRightBehindTheHandshake(t *testing.T) {
	s := serve(t, channels.Options{})
	w := s.join("a", "")
	frame := func(i, n int) string {
		return wsFrame(rawText, fmt.Sprintf(`{"header":"x","body":"%d%s"}`, i, long(n)))
	}
	for name, c := range map[string]struct{ count, size int }{
		"one":                        {1, 0},
		"many":                       {50, 10},
		"one longer than net/http's": {1, 10_000},
		"several of them":            {3, 5000},
		"exactly net/http's buffer":  {1, 4096 - len(upgradeRequest("/channel/a/")) - len(frame(0, 200)) + 200},
	} {
		t.Run(name, func(t *testing.T) {
			conn := s.dialRaw()
			request := upgradeRequest("/channel/a/")
			for i := range c.count {
				request += frame(i, c.size)
			}
			conn.Send(request)
			conn.Upgraded()
			for i := range c.count {
				body := fmt.Sprintf(`"%d%s"`, i, long(c.size))
				w.want("x", body)
				require.Equal(t, body, string(conn.Message().Body))
				require.Equal(t, "exchange", conn.Message().Header)
			}
		})
	}
	t.Run("half a frame", func(t *testing.T) {
		conn := s.dialRaw()
		f := frame(0, 10)
		conn.Send(upgradeRequest("/channel/a/") + f[:3])
		conn.Upgraded()
		conn.Send(f[3:])
		w.want("x", `"0`+long(10)+`"`)
	})
}

func TestIDIsEchoed(t *testing.T) {
	s := serve(t, channels.Options{})
	w := s.join("a", "")
	other := s.join("a", "")
	id64 := `"` + long(62) + `"`
	for _, c := range []struct{ text, id, code string }{
		{`{"header":"x","body":1}`, "", ""},
		{`{"header":"x","body":1,"id":null}`, "", ""},
		{`{"header":"x","body":1,"id":0}`, "0", ""},
		{`{"header":"x","body":1,"id":-1.50e3}`, "-1.50e3", ""},
		{`{"header":"x","body":1,"id":123456789012345678901234567890}`, "123456789012345678901234567890", ""},
		{`{"header":"x","body":1,"id":""}`, `""`, ""},
		{`{"header":"x","body":1,"id":"a\u0000\n\"ü"}`, `"a\u0000\n\"ü"`, ""},
		{`{"header":"x","body":1,"id":true}`, "true", ""},
		{`{"header":"x","body":1,"id":` + id64 + `}`, id64, ""},
		{`{"id":1,"id":2,"header":"x","body":1}`, "2", "bad_message"}, // a name stands there twice
		// A refusal has the id too.
		{`{"header":"error","body":1,"id":"r"}`, `"r"`, "reserved_header"},
		{`{"header":1,"body":1,"id":"h"}`, `"h"`, "bad_message"},
		{`{"id":5}`, "5", "bad_message"},
		// Invalid ids.
		{`{"header":"x","body":1,"id":{}}`, "", "bad_message"},
		{`{"header":"x","body":1,"id":[1]}`, "", "bad_message"},
		{`{"header":"x","body":1,"id":"` + long(63) + `"}`, "", "bad_message"},
		{`{"id":1,`, "", "bad_json"},
	} {
		t.Run(c.text[:min(len(c.text), 50)], func(t *testing.T) {
			w.send(c.text)
			if c.code == "" {
				require.Nil(t, w.want("x", `1`).ID, "subscribers do not see it")
				require.Nil(t, other.want("x", `1`).ID)
			}
			m := w.next()
			require.Equal(t, c.code, m.ErrorCode())
			require.Equal(t, c.id, string(m.ID))
		})
	}
}

// With a key, a client whose connection was cut before the answer can send the message
// again.
func TestKeyOverWebSocket(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	w := s.join("h", "")
	w.send(`{"header":"x","body":1,"key":"k","id":1}`)
	m := w.want("x", `1`)
	w.wantExchange(m)
	w.send(`{"header":"x","body":1,"key":"k","id":2}`)
	require.Equal(t, "2", string(w.wantRepeat(m).ID), "the first one's position, and nothing published")
	w.c.CloseNow()
	again := s.join("h", m.Since())
	again.send(`{"header":"x","body":1,"key":"k"}`)
	again.wantRepeat(m)
	a := s.post("/v1/channel/h/publish", `{"header":"x","body":1}`, "Idempotency-Key", "k")
	a.wantOK(t, fmt.Sprintf(`{"status":"ok","offset":%d,"epoch":%q,"duplicate":true}`, m.Offset, m.Epoch))
	for key, code := range map[string]string{
		`""`: "bad_idempotency_key", `"a b"`: "bad_idempotency_key", `"é"`: "bad_idempotency_key", `"` + long(201) + `"`: "bad_idempotency_key",
		`5`: "bad_message", `{}`: "bad_message",
	} {
		again.send(`{"id":"i","header":"x","body":1,"key":` + key + `}`)
		e := again.next()
		require.Equal(t, code, e.ErrorCode(), string(e.Body))
		require.Equal(t, `"i"`, string(e.ID))
	}
	again.send(`{"header":"x","body":3,"key":null}`) // none
	again.want("x", `3`)

	plain := s.join("a", "")
	plain.send(`{"header":"x","body":1,"key":"k"}`)
	require.Equal(t, "no_history", plain.next().ErrorCode())
}
