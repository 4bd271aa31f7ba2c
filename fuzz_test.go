package channels_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/internal/pattern"
)

// The fuzz tests call the handler within the process: a socket would make
// them a hundred times slower, and is no part of what they look for.

// fuzzMax is small, so that the fuzzer reaches what is beyond it.
const fuzzMax = 2048

// newFuzzHub is a hub whose log must stay free of panics.
func newFuzzHub(tb testing.TB, o channels.Options) (*channels.Hub, *logBuffer) {
	log := &logBuffer{}
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	o.MaxMessageBytes = fuzzMax
	return newHub(tb, o), log
}

// ask makes a request of the handler, and wants JSON with a status and a code
// that are in the list.
func ask(t *testing.T, hub *channels.Hub, r *http.Request, codes ...string) answer {
	t.Helper()
	w := httptest.NewRecorder()
	hub.Handler().ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header(), body: w.Body.String()}
	require.True(t, utf8.Valid(w.Body.Bytes()), "%q", a.body)
	d := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	d.UseNumber() // a body may hold 1e400
	require.NoError(t, d.Decode(&a.json), "%q", a.body)
	if a.status != 200 {
		a.wantFail(t, a.status, a.code())
		require.Contains(t, codes, fmt.Sprint(a.status, " ", a.code()), a.body)
	}
	return a
}

// request makes a request whose query may be anything.
func request(method, path, query string, body []byte) *http.Request {
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	r.URL.RawQuery = query
	return r
}

// A body that is accepted arrives as the same JSON value, with the same
// digits; what is refused has a reason.
func FuzzPublishHTTP(f *testing.F) {
	for _, c := range badInput {
		if len(c.text) < 4*fuzzMax {
			f.Add([]byte(c.text))
		}
	}
	f.Add([]byte("{\"header\":\"x\",\"body\":\"\xff\"}"))
	hub, log := newFuzzHub(f, channels.Options{Channel: keep(1)})
	f.Fuzz(func(t *testing.T, text []byte) {
		given := bytes.Clone(text)
		a := ask(t, hub, request("POST", "/v1/channel/a/publish", "", text),
			"400 bad_json", "400 bad_utf8", "400 bad_message", "400 reserved_header", "413 too_large",
			"400 bad_idempotency_key", "409 key_reused")
		require.Equal(t, given, text, "the caller's bytes")
		require.NotContains(t, log.String(), "panic")
		if a.status != 200 || a.json["duplicate"] == true {
			return
		}
		var members map[string]json.RawMessage // with exact names
		require.NoError(t, json.Unmarshal(text, &members))
		var sent struct {
			Header string
			Body   json.RawMessage
		}
		require.NoError(t, json.Unmarshal(members["header"], &sent.Header))
		sent.Body = members["body"]
		h := historyOf(t, hub, "a", channels.HistoryQuery{Limit: 1})
		got := h.Messages[0]
		require.Equal(t, sent.Header, got.Header)
		require.NotContains(t, string(got.Body), "\n", "one line")
		require.NotContains(t, string(got.Body), "\r", "one line")
		require.LessOrEqual(t, len(got.Body), fuzzMax)
		require.Equal(t, compact(t, sent.Body), compact(t, got.Body))
	})
}

func compact(t *testing.T, b []byte) string {
	t.Helper()
	var c bytes.Buffer
	require.NoError(t, json.Compact(&c, b), "%q", b)
	return c.String()
}

// pipeWriter is a ResponseWriter whose connection is the test's.
type pipeWriter struct {
	*httptest.ResponseRecorder
	conn  net.Conn
	early string // what net/http has read behind the request
}

func (w pipeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	r := bufio.NewReader(io.MultiReader(strings.NewReader(w.early), w.conn))
	if _, err := r.Peek(len(w.early)); err != nil {
		return nil, nil, err
	}
	return w.conn, bufio.NewReadWriter(r, bufio.NewWriter(w.conn)), nil
}

// upgradeOf is a handshake as the handler gets it.
func upgradeOf(channel string) *http.Request {
	text := upgradeRequest("/channel/"+channel+"/", "Sec-WebSocket-Extensions: permessage-deflate")
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		panic(err)
	}
	r.RemoteAddr = "192.0.2.1:1234"
	return r
}

// duplex is a connection made of two pipes, so that one way can end before the other.
type duplex struct {
	net.Conn // which is written to
	from     net.Conn
}

func (d duplex) Read(b []byte) (int, error)        { return d.from.Read(b) }
func (d duplex) SetReadDeadline(t time.Time) error { return d.from.SetReadDeadline(t) }
func (d duplex) Close() error                      { return errors.Join(d.from.Close(), d.Conn.Close()) }

// Whatever a client sends after the handshake, as frames of its own making or
// as the text of a proper one, the server's frames are well-formed, what they
// say is JSON with a known header, and the connection ends when the client's
// does.
func FuzzClientFrame(f *testing.F) {
	for _, c := range badInput {
		if len(c.text) < 4*fuzzMax {
			f.Add([]byte(c.text), true)
		}
	}
	ok := `{"header":"x","body":1,"id":1}`
	for _, frames := range []string{
		"", wsFrame(rawText, ok), wsFrame(opText, ok[:9]) + wsFrame(rawPing, "p") + wsFrame(finBit, ok[9:]), wsFrame(finBit|opBinary, ok),
		wsFrame(rawClose, "\x03\xe8bye"), wsFrame(rawClose, ""), wsFrame(rawPong, ""), wsFrame(rawText, "\xff"), wsFrame(rawClose, "\x03\xe8\xff"),
		frameHeader(rawText, 0, 3) + "abc", frameHeader(rawText, 0x80, 1<<63) + "mask", frameHeader(rawText, 0x80, 1<<40) + "mask" + ok,
		wsFrame(finBit|rsv1Bit|opText, "\xaaV\xcaHML)J-R\xb2R\xaaP\xd2QJ\xcaO\xa9T\xb22\xac\x05\x00"), "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 64),
	} {
		f.Add([]byte(frames), false)
	}
	gone := make(departures, 1)
	hub, log := newFuzzHub(f, channels.Options{OnDisconnect: gone.hook})
	f.Fuzz(func(t *testing.T, b []byte, asText bool) {
		if asText {
			b = hubtest.Masked(rawText, b)
		}
		said, to := net.Pipe()
		from, say := net.Pipe()
		said.SetDeadline(time.Now().Add(patience))
		say.SetDeadline(time.Now().Add(patience))
		var wg sync.WaitGroup
		wg.Go(func() {
			say.Write(b) // fails where the server has closed
			say.Close()
		})
		wg.Go(func() {
			hub.Handler().ServeHTTP(pipeWriter{httptest.NewRecorder(), duplex{to, from}, ""}, upgradeOf("a"))
		})
		defer func() {
			said.Close()
			say.Close()
			wg.Wait()
			<-gone
		}()

		reader := &hubtest.Conn{T: t, C: said, BR: bufio.NewReader(said)}
		reader.Upgraded()
		for closed := false; ; {
			frame, err := reader.TryRead()
			if err != nil {
				require.False(t, isTimeout(err), "the server does not end the connection")
				break
			}
			require.False(t, closed, "a frame behind the close frame: %x %q", frame.First, frame.Payload)
			switch frame.First {
			case rawText:
				checkSaid(t, frame.Payload)
			case rawText | rsv1Bit: // RFC 7692 section 7.2.2
				checkSaid(t, hubtest.Inflate(t, frame.Payload))
			case rawPing, rawPong:
				require.LessOrEqual(t, len(frame.Payload), 125)
			case rawClose:
				closed = true
				if len(frame.Payload) > 0 {
					code := int(binary.BigEndian.Uint16(frame.Payload))
					require.True(t, code >= 1000 && code <= 1014 || code >= 3000 && code < 5000, code)
					require.True(t, utf8.Valid(frame.Payload[2:]))
				}
			default:
				require.Fail(t, "a frame that nobody sends", "%x %q", frame.First, frame.Payload)
			}
		}
		require.NotContains(t, log.String(), "panic")
	})
}

// However the bytes of a client arrive (behind the request, so that net/http
// has read them already, or in any number of pieces, over a socket that the hub
// reads itself or another), the server answers the same.
//
// The frames are well-formed as far as their length goes, so that the close
// frame at the end is one: b is cut at zero bytes, and the first byte of each
// part is the frame's.
func FuzzArrival(f *testing.F) {
	ok := `{"header":"x","body":1,"id":1}`
	longer := `{"header":"x","body":"` + long(700) + `"}`
	for _, frames := range [][]string{
		{"\x81" + ok}, {"\x81" + ok, "\x89p", "\x81" + longer}, {"\x01" + ok[:9], "\x89p", "\x80" + ok[9:]}, {"\x82" + ok, "\x81{"}, {"\x81\xff", "\x81" + ok},
		{"\xc1" + hubtest.Deflated(ok, 1), "\x81" + ok}, {"\x83"}, {"\x88"}, {"\x81" + long(fuzzMax+9000)}, {"\x81" + longer, "\x81" + longer, "\x81" + longer, "\x81" + longer},
	} {
		b := []byte(strings.Join(frames, "\x00"))
		for _, early := range []uint16{0, 1, 7, 4096} {
			f.Add(b, early, []byte{1}, true)
			f.Add(b, early, []byte{3, 200, 1, 0, 90}, false)
		}
	}
	hub, log := newFuzzHub(f, channels.Options{})
	dir, err := os.MkdirTemp("", "ch") // and not TempDir, whose names are too long for a socket
	require.NoError(f, err)
	f.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	require.NoError(f, err)
	f.Cleanup(func() { l.Close() })
	f.Fuzz(func(t *testing.T, b []byte, early uint16, pieces []byte, socket bool) {
		var frames string
		for part := range bytes.SplitSeq(b, []byte{0}) {
			if len(part) > 0 {
				frames += wsFrame(part[0], string(part[1:]))
			}
		}
		frames += wsFrame(rawClose, "\x03\xe8")
		whole := arrive(t, hub, l, frames, 0, nil, false)
		require.NotEmpty(t, whole)
		require.Equal(t, whole, arrive(t, hub, l, frames, min(int(early), len(frames), 4096), pieces, socket))
		require.NotContains(t, log.String(), "panic")
	})
}

// arrive has a client send frames in pieces, of which the first is early, and
// returns the texts that it gets, and the close frame.
func arrive(t *testing.T, hub *channels.Hub, l net.Listener, frames string, early int, pieces []byte, socket bool) (got []string) {
	t.Helper()
	var there, here net.Conn
	if socket {
		var err error
		here, err = net.Dial("unix", l.Addr().String())
		require.NoError(t, err)
		there, err = l.Accept()
		require.NoError(t, err)
	} else {
		there, here = net.Pipe()
	}
	here.SetDeadline(time.Now().Add(patience))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer here.Close()
	wg.Go(func() {
		hub.Handler().ServeHTTP(pipeWriter{httptest.NewRecorder(), there, frames[:early]}, upgradeOf("a"))
	})
	reader := &hubtest.Conn{T: t, C: here, BR: bufio.NewReader(here)}
	reader.Upgraded()
	wg.Go(func() {
		rest := frames[early:]
		for i := 0; rest != ""; i++ {
			n := len(rest)
			if len(pieces) > 0 {
				n = min(n, 1+int(pieces[i%len(pieces)]))
			}
			if _, err := io.WriteString(here, rest[:n]); err != nil {
				return // the server has closed
			}
			rest = rest[n:]
			runtime.Gosched()
		}
	})
	for {
		frame, err := reader.TryRead()
		require.NoError(t, err, "before a close frame")
		switch frame.First {
		case rawText:
			got = append(got, string(frame.Payload))
		case rawText | rsv1Bit:
			got = append(got, string(hubtest.Inflate(t, frame.Payload)))
		case rawClose:
			return append(got, fmt.Sprintf("closed: %x", frame.Payload))
		}
	}
}

// checkSaid checks one text of the server's: a message of the client's own,
// or an answer.
func checkSaid(t *testing.T, b []byte) {
	t.Helper()
	require.True(t, utf8.Valid(b), "%q", b)
	require.NotContains(t, string(b), "\n")
	var m struct {
		Header string          `json:"header"`
		Body   json.RawMessage `json:"body"`
		ID     json.RawMessage `json:"id"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&m), "%q", b)
	require.NotEmpty(t, m.Header)
	require.NotNil(t, m.Body)
	switch m.Header {
	case "error":
		var e struct{ Code, Msg string }
		require.NoError(t, json.Unmarshal(m.Body, &e))
		require.Contains(t, []string{"bad_json", "bad_message", "reserved_header", "too_large", "binary"}, e.Code)
		require.NotEmpty(t, e.Msg)
	case "exchange":
		require.Equal(t, `{"msg":"ok"}`, string(m.Body))
	case "reset", "reconnect", "presence":
		require.Fail(t, "the client has forged what only the hub says", "%q", b)
	default:
		require.Nil(t, m.ID)
	}
}

// FuzzBody: what Publish takes is what encoding/json takes, less what nests deeply.
func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"a":1}`, ` [1,2.5e-7,-0,true,false,null,"\u00ff\n"] `, "01", "-", "1.", "1e", `"\u12g4"`, "{,}", "[1,]", "1E700", "tru", "\"\x01\"", "\x00",
		"{\n\t\"a\" : [ ],\r\n\"a\":{}}", "1 2", "", `"\/\b\x"`, "\"\xff\"", "\"\u2028\"", strings.Repeat("[", 600) + strings.Repeat("]", 600),
		strings.Repeat("[", 500) + strings.Repeat("]", 500), strings.Repeat("[", 100_000), `"` + strings.Repeat("[", 2000) + `"`} {
		f.Add([]byte(s))
	}
	hub, _ := newFuzzHub(f, channels.Options{})
	sub := subscription(f, hub, "body", nil)
	next, stop := iter.Pull2(sub.Messages())
	f.Cleanup(stop)
	f.Fuzz(func(t *testing.T, b []byte) {
		given := bytes.Clone(b)
		_, err := hub.Publish(t.Context(), "body", channels.Message{Header: "h", Body: b})
		require.Equal(t, given, b, "the caller's bytes")
		valid := utf8.Valid(b) && json.Valid(b)
		var v any
		if valid {
			v = valueOf(t, b)
		}
		if err == nil {
			require.True(t, valid, "%q", b)
			m, e, ok := next()
			require.True(t, ok)
			require.NoError(t, e)
			require.NotContains(t, string(m.Body), "\n")
			require.Equal(t, v, valueOf(t, m.Body))
			return
		}
		switch {
		case len(b) > fuzzMax:
			require.ErrorIs(t, err, channels.ErrTooLarge)
		case valid:
			require.ErrorContains(t, err, "levels deep")
			require.Greater(t, nesting(v), 500)
		}
	})
}

// valueOf keeps numbers as they are written: 1e700 is one.
func valueOf(t *testing.T, b []byte) (v any) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	require.NoError(t, d.Decode(&v))
	return v
}

func nesting(v any) (deepest int) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			deepest = max(deepest, nesting(e))
		}
	case map[string]any:
		for _, e := range v {
			deepest = max(deepest, nesting(e))
		}
	default:
		return 0
	}
	return deepest + 1
}

// A name is valid, or the path that carries it is refused; a valid one comes
// back from the list as it was.
func FuzzCheckName(f *testing.F) {
	for _, name := range []string{"", "a", "한국어", ".", "..", "...", "a/b", "a*", "?", " ", "\x00", "\x7f", "\u0085", "\u00a0", "\u2028", "\ufeff", "\ufffd", "\xff", "\xed\xa0\x80",
		"%2F", "a%", "+", ";", "#", `"`, `\`, "<", "🙂", long(200), long(201), strings.Repeat("한", 66) + "xx", strings.Repeat("한", 67)} {
		f.Add(name)
	}
	hub, log := newFuzzHub(f, channels.Options{MaxChannels: 1 << 20})
	f.Fuzz(func(t *testing.T, name string) {
		err := channels.CheckName(name)
		path := "/v1/channel/" + url.PathEscape(name)
		if name == "" {
			require.ErrorIs(t, err, channels.ErrBadChannel)
			return // that path is the list's
		}
		a := ask(t, hub, httptest.NewRequest("GET", path, nil), "400 bad_channel")
		require.NotContains(t, log.String(), "panic")
		if err != nil {
			require.ErrorIs(t, err, channels.ErrBadChannel)
			require.Equal(t, "bad_channel", a.code())
			return
		}
		require.Equal(t, 200, a.status)
		require.Equal(t, name, a.json["data"].(map[string]any)["channel_name"])
		require.True(t, utf8.ValidString(name) && len(name) <= channels.MaxNameBytes)
		require.NotContains(t, []string{".", ".."}, name)
		require.False(t, strings.ContainsAny(name, "/*? \t\r\n\x00"), "%q", name)
	})
}

// Whatever a client takes for a pattern, either it is refused, or its subscriber gets
// what is published on the channels that it matches, and nothing else.
func FuzzSubscribePattern(f *testing.F) {
	for _, text := range []string{"", "chat.*", "*", "?", "[a-c]*", "[^a", `\`, `a\*`, "a/*", "a *", "\xff*", "*é?", long(200), long(201), strings.Repeat("*a", 100), "*" + strings.Repeat("?", 199)} {
		f.Add(text, "chat.a")
		f.Add(text, long(200))
	}
	hub, _ := newFuzzHub(f, channels.Options{MaxChannels: 1 << 20})
	f.Fuzz(func(t *testing.T, text, name string) {
		sub, err := hub.SubscribePattern(t.Context(), text)
		if err != nil {
			require.ErrorIs(t, err, channels.ErrBadChannel)
			return
		}
		defer sub.Close()
		p, err := pattern.Compile(text)
		require.NoError(t, err)
		res, err := hub.Publish(t.Context(), name, msg("x", "1"))
		if err != nil {
			require.ErrorIs(t, channels.CheckName(name), channels.ErrBadChannel)
			return
		}
		if !p.Match(name) {
			require.Zero(t, res.Receivers)
			return
		}
		require.Equal(t, 1, res.Receivers)
		require.Equal(t, name, next(t, sub).Channel)
	})
}

// A position that is accepted is the same when it is written and read again.
func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"", ":", ":0", "a:1", "k3f9:12", "a:b:3", "a:-1", "a:+1", "a: 1", "a:1 ", "a:01", "a:1_0", "a:0x1", " :1", "é:1", "a\n:1",
		"a:18446744073709551615", "a:18446744073709551616", long(64) + ":1", long(65) + ":1"} {
		f.Add(s)
	}
	hub, _ := newFuzzHub(f, channels.Options{Channel: keep(1)})
	f.Fuzz(func(t *testing.T, s string) {
		p, err := channels.ParsePosition(s)
		if s != "" { // which is no position at all
			a := ask(t, hub, request("GET", "/v1/channel/a/history", "since="+url.QueryEscape(s), nil), "400 bad_query")
			require.Equal(t, err == nil, a.status == 200, a.body)
		}
		if err != nil {
			require.ErrorIs(t, err, channels.ErrBadQuery)
			require.Equal(t, channels.Position{}, p)
			return
		}
		again, err := channels.ParsePosition(p.String())
		require.NoError(t, err)
		require.Equal(t, p, again)
		require.LessOrEqual(t, len(p.Epoch), 64)
		require.False(t, strings.ContainsAny(p.String(), "\r\n"), "an id of server-sent events is one line")
	})
}

// Whatever the query, the answer is a page of what there is, in order, or a
// refusal; and following its cursors comes to an end, with nothing left out.
func FuzzListQuery(f *testing.F) {
	hub, log := newFuzzHub(f, channels.Options{})
	var all []string
	for i := range 50 {
		name := fmt.Sprintf("%s%d", []string{"room.", "룸", "a%"}[i%3], i)
		all = append(all, name)
		publish(f, hub, name, "x", "1")
	}
	slices.Sort(all)
	// What was published a minute ago leaves the list, so someone stays.
	for _, name := range all {
		subscription(f, hub, name, nil)
	}
	for _, q := range []string{"", "limit=1", "limit=7&prefix=room.", "limit=1000", "limit=0", "limit=-1", "limit=x", "prefix=%EB%A3%B8", "prefix=%", "prefix=a%25&limit=2", "prefix=a/b",
		"cursor=cm9vbS4x", "cursor=!", "cursor=", "cursor=YQ==", "cursor=Lw&limit=2", "limit=1&limit=2", "a=b;c", "%zz=1", "prefix=%FF", "unknown=1&limit=3"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		get := func(query string) answer {
			return ask(t, hub, request("GET", "/v1/channel", query, nil), "400 bad_query")
		}
		a := get(query)
		require.NotContains(t, log.String(), "panic")
		if a.status != 200 {
			return
		}
		q, err := url.ParseQuery(query)
		require.NoError(t, err)
		got := namesOf(t, a)
		for pages := 0; a.json["next"] != ""; pages++ {
			require.Less(t, pages, len(all), "the cursors never end")
			q.Set("cursor", a.json["next"].(string))
			a = get(q.Encode())
			require.Equal(t, 200, a.status, a.body)
			got = append(got, namesOf(t, a)...)
		}
		require.True(t, slices.IsSorted(got))
		require.Len(t, slices.Compact(slices.Clone(got)), len(got), "twice")
		var want []string
		for _, name := range all {
			if strings.HasPrefix(name, q.Get("prefix")) && (len(got) == 0 || name >= got[0]) {
				want = append(want, name)
			}
		}
		if len(got) > 0 {
			require.Equal(t, want, got)
		}
	})
}

func namesOf(t *testing.T, a answer) (names []string) {
	t.Helper()
	for _, row := range a.json["data"].([]any) {
		row := row.(map[string]any)
		require.ElementsMatch(t, []string{"channel_name", "cnt", "rpm"}, keysOf(row))
		names = append(names, row["channel_name"].(string))
	}
	return names
}
