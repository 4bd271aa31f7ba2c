// Package protocol has the case groups of the Autobahn test suite, for the WebSocket
// protocol as a server speaks it.
package protocol

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The Autobahn test suite wants a server that echoes, and a hub publishes, so these
// are its cases as tests of our own. A client that publishes is a subscriber too:
// each case sees its messages come back, each with an answer.
//
// Left out are group 11 and the parts of group 7 that the suite only reports on,
// which have no right answer (there is no group 8). The hub refuses binary messages,
// so the binary half of each group is one case.

// A wsCase is what a client sends and what has to come of it.
type wsCase struct {
	id     string // the suite's number of the case, or of its group
	name   string
	frames []string
	got    []string // the bodies that subscribers get, or "!" and the code of a refusal
	pongs  []string // pings that came together may be answered by the last one's pong alone
	offer  []string // further header lines of the handshake
	close  int      // the close frame's code; 0: the connection stays; noCode: one without a code
}

const noCode = -1

// end is the message whose answer ends what collect reads.
var end = hubtest.WSFrame(hubtest.RawText, `{"header":"end","body":0,"id":"end"}`)

// sayOf is a message whose text has n bytes; its body is bodyOf(n).
func sayOf(n int) string { return hubtest.Say(bodyOf(n)) }

func bodyOf(n int) string {
	return `"` + hubtest.Long(n-len(hubtest.Say(`""`))) + `"`
}

// text is an unfragmented message.
func text(body string) string { return hubtest.WSFrame(hubtest.RawText, hubtest.Say(body)) }

// split cuts a message into fragments of at most n bytes, with pings between
// them where there are any.
func split(first byte, text string, n int, between ...string) (frames []string) {
	for op := first; ; op = 0 {
		part := text[:min(n, len(text))]
		text = text[len(part):]
		if text == "" {
			return append(frames, hubtest.WSFrame(hubtest.FinBit|op, part))
		}
		frames = append(frames, hubtest.WSFrame(op, part))
		frames = append(frames, between...)
	}
}

func framingCases() (cs []wsCase) {
	for _, n := range []int{26, 125, 126, 127, 128, 65535, 65536} {
		cs = append(cs, wsCase{id: "1.1", name: fmt.Sprint("text of ", n), frames: []string{hubtest.WSFrame(hubtest.RawText, sayOf(n))}, got: []string{bodyOf(n)}})
	}
	return append(cs,
		wsCase{id: "1.1.1", name: "empty text", frames: []string{hubtest.WSFrame(hubtest.RawText, "")}, got: []string{"!bad_json"}},
		wsCase{id: "1.2.1", name: "empty binary", frames: []string{hubtest.WSFrame(hubtest.FinBit|hubtest.OpBinary, "")}, got: []string{"!binary"}},
		wsCase{id: "1.2", name: "binary of 65536", frames: []string{hubtest.WSFrame(hubtest.FinBit|hubtest.OpBinary, hubtest.Long(65536))}, got: []string{"!binary"}},
		wsCase{id: "1.1", name: "a length in more bytes than it needs is read", frames: []string{"\x81\xfe\x00\x1a\x00\x00\x00\x00" + sayOf(26)}, got: []string{bodyOf(26)}},
	)
}

func pingCases() (cs []wsCase) {
	ten := make([]string, 10)
	var pings []string
	for i := range ten {
		ten[i] = fmt.Sprint("ping ", i)
		pings = append(pings, hubtest.WSFrame(hubtest.RawPing, ten[i]))
	}
	return []wsCase{
		{id: "2.1", name: "without payload", frames: []string{hubtest.WSFrame(hubtest.RawPing, "")}, pongs: []string{""}},
		{id: "2.2", name: "with text", frames: []string{hubtest.WSFrame(hubtest.RawPing, "Hello, world!")}, pongs: []string{"Hello, world!"}},
		{id: "2.3", name: "with bytes", frames: []string{hubtest.WSFrame(hubtest.RawPing, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff")}, pongs: []string{"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"}},
		{id: "2.4", name: "of 125 bytes", frames: []string{hubtest.WSFrame(hubtest.RawPing, strings.Repeat("\xfe", 125))}, pongs: []string{strings.Repeat("\xfe", 125)}},
		{id: "2.5", name: "of 126 bytes", frames: []string{hubtest.WSFrame(hubtest.RawPing, strings.Repeat("\xfe", 126))}, close: 1002},
		{id: "2.7", name: "a pong that nobody asked for", frames: []string{hubtest.WSFrame(hubtest.RawPong, "")}},
		{id: "2.8", name: "one with payload", frames: []string{hubtest.WSFrame(hubtest.RawPong, "unsolicited")}},
		{id: "2.9", name: "such a pong and a ping", frames: []string{hubtest.WSFrame(hubtest.RawPong, "unsolicited"), hubtest.WSFrame(hubtest.RawPing, "p")}, pongs: []string{"p"}},
		{id: "2.10", name: "ten pings", frames: pings, pongs: ten},
	}
}

func reservedBitCases() []wsCase {
	rsv := func(bits byte, op byte, payload string) string {
		return hubtest.WSFrame(hubtest.FinBit|bits<<4|op, payload)
	}
	return []wsCase{
		{id: "3.1", name: "3 on text", frames: []string{rsv(4, hubtest.OpText, hubtest.Say("1"))}, close: 1002},
		{id: "3.2", name: "2 on a second text", frames: []string{text("1"), rsv(2, hubtest.OpText, hubtest.Say("2")), hubtest.WSFrame(hubtest.RawPing, "")}, got: []string{"1"}, close: 1002},
		{id: "3.3", name: "2 and 3 on a second text", frames: []string{text("1"), rsv(3, hubtest.OpText, hubtest.Say("2")), hubtest.WSFrame(hubtest.RawPing, "")}, got: []string{"1"}, close: 1002},
		{id: "3.4", name: "1 on a third text", frames: []string{text("1"), text("2"), rsv(1, hubtest.OpText, hubtest.Say("3"))}, got: []string{"1", "2"}, close: 1002},
		{id: "3.5", name: "1 and 3 on binary", frames: []string{rsv(5, hubtest.OpBinary, "\x00\xff")}, close: 1002},
		{id: "3.6", name: "1 and 2 on a ping", frames: []string{rsv(6, hubtest.OpPing, "p")}, close: 1002},
		{id: "3.7", name: "all on a close frame", frames: []string{rsv(7, hubtest.OpClose, "\x03\xe8")}, close: 1002},
		{id: "3", name: "on a continuation", frames: []string{hubtest.WSFrame(hubtest.OpText, hubtest.Say("1")[:9]), rsv(1, 0, hubtest.Say("1")[9:])}, close: 1002},
	}
}

func opcodeCases() (cs []wsCase) {
	for i, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		id := fmt.Sprintf("4.%d.%d", 1+i/5, 1+i%5)
		cs = append(cs,
			wsCase{id: id, name: fmt.Sprintf("%d alone", op), frames: []string{hubtest.WSFrame(hubtest.FinBit|op, "")}, close: 1002},
			wsCase{id: id, name: fmt.Sprintf("%d with payload, behind a text", op),
				frames: []string{text("1"), hubtest.WSFrame(hubtest.FinBit|op, "payload"), hubtest.WSFrame(hubtest.RawPing, "")}, got: []string{"1"}, close: 1002},
			wsCase{id: id, name: fmt.Sprintf("%d within a message", op), frames: []string{hubtest.WSFrame(hubtest.OpText, hubtest.Say("1")[:9]), hubtest.WSFrame(hubtest.FinBit|op, "")}, close: 1002})
	}
	return cs
}

func fragmentCases() []wsCase {
	one := hubtest.Say(`"fragment1fragment2"`)
	body := `"fragment1fragment2"`
	two := split(hubtest.OpText, one, 30)
	ping := hubtest.WSFrame(hubtest.RawPing, "pongme")
	return []wsCase{
		{id: "5.1", name: "a ping in two", frames: []string{hubtest.WSFrame(hubtest.OpPing, "a"), hubtest.WSFrame(hubtest.FinBit, "b")}, close: 1002},
		{id: "5.2", name: "a pong in two", frames: []string{hubtest.WSFrame(hubtest.OpPong, "a"), hubtest.WSFrame(hubtest.FinBit, "b")}, close: 1002},
		{id: "5.3", name: "a text in two", frames: two, got: []string{body}},
		{id: "5.6", name: "a ping between them", frames: split(hubtest.OpText, one, 30, ping), got: []string{body}, pongs: []string{"pongme"}},
		{id: "5.9", name: "a continuation of nothing", frames: []string{hubtest.WSFrame(hubtest.FinBit, "x"), text("1")}, close: 1002},
		{id: "5.12", name: "a continuation of nothing, to be continued", frames: []string{hubtest.WSFrame(0, "x"), text("1")}, close: 1002},
		{id: "5.15", name: "a continuation behind a message that has ended",
			frames: append(split(hubtest.OpText, one, 30), hubtest.WSFrame(0, "x"), text("1")), got: []string{body}, close: 1002},
		{id: "5.16", name: "begun by a continuation, twice", frames: []string{hubtest.WSFrame(0, "a"), hubtest.WSFrame(hubtest.OpText, "b"), hubtest.WSFrame(hubtest.FinBit, "c")}, close: 1002},
		{id: "5.18", name: "a text within a text", frames: []string{hubtest.WSFrame(hubtest.OpText, one[:30]), hubtest.WSFrame(hubtest.FinBit|hubtest.OpText, one[30:])}, close: 1002},
		{id: "5", name: "a binary within a text", frames: []string{hubtest.WSFrame(hubtest.OpText, one[:30]), hubtest.WSFrame(hubtest.FinBit|hubtest.OpBinary, one[30:])}, close: 1002},
		{id: "5.19", name: "a text in many, with pings", frames: split(hubtest.OpText, one, 8, hubtest.WSFrame(hubtest.RawPing, "1"), hubtest.WSFrame(hubtest.RawPing, "2")),
			got: []string{body}, pongs: []string{"1", "2", "1", "2", "1", "2", "1", "2", "1", "2"}},
		{id: "5.3", name: "a binary in two", frames: split(hubtest.OpBinary, one, 30), got: []string{"!binary"}},
		{id: "6.1", name: "empty fragments", frames: []string{hubtest.WSFrame(hubtest.OpText, ""), hubtest.WSFrame(0, ""), hubtest.WSFrame(hubtest.FinBit, hubtest.Say("1"))}, got: []string{"1"}},
		{id: "6.1", name: "an empty last fragment", frames: []string{hubtest.WSFrame(hubtest.OpText, hubtest.Say("1")), hubtest.WSFrame(hubtest.FinBit, "")}, got: []string{"1"}},
		{id: "6.1", name: "nothing but empty fragments", frames: []string{hubtest.WSFrame(hubtest.OpText, ""), hubtest.WSFrame(0, ""), hubtest.WSFrame(hubtest.FinBit, "")}, got: []string{"!bad_json"}},
	}
}

// utf8Cases: the valid and the invalid sequences of Markus Kuhn's stress test,
// each in one frame and cut inside of the sequence.
func utf8Cases() (cs []wsCase) {
	for i, valid := range []string{
		"κόσμε", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffd", "\uffff", "\U00010000", "\U0010ffff", "\x7f",
		"\ufffe", "\U0001fffe", "\U0001ffff", "\U0010fffe", "Hello-µ@ßöäüàá-UTF-8!!",
	} {
		t := hubtest.Say(`"` + valid + `"`)
		at := strings.Index(t, valid) + 1
		for _, frames := range [][]string{{hubtest.WSFrame(hubtest.RawText, t)}, {hubtest.WSFrame(hubtest.OpText, t[:at]), hubtest.WSFrame(hubtest.FinBit, t[at:])}, split(hubtest.OpText, t, 1)} {
			cs = append(cs, wsCase{id: "6.2", name: fmt.Sprintf("valid %d: %+q in %d", i, valid, len(frames)), frames: frames, got: []string{`"` + valid + `"`}})
		}
	}
	invalid := []string{
		"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", "\xf4\x90\x80\x80",
		"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf", "\x80\xbf\x80\xbf\x80", "\x80\xbf\x80\xbf\x80\xbf",
		"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf",
		"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf",
		"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80",
		"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf",
		"\xed\xa0\x80\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf",
		"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80", "\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf",
		"\xfe", "\xff", "\xfe\xfe\xff\xff",
	}
	for lead := 0xc0; lead <= 0xfd; lead++ {
		invalid = append(invalid, string([]byte{byte(lead), ' '}))
	}
	for i, bad := range invalid {
		t := hubtest.Say(`"` + bad + `"`)
		at := strings.Index(t, bad) + 1
		for _, frames := range [][]string{{hubtest.WSFrame(hubtest.RawText, t)}, {hubtest.WSFrame(hubtest.OpText, t[:at]), hubtest.WSFrame(hubtest.FinBit, t[at:])}} {
			cs = append(cs, wsCase{id: "6.3", name: fmt.Sprintf("invalid %d: %x in %d", i, bad, len(frames)), frames: append(frames, text("1")), close: 1007})
		}
	}
	// 6.4 asks to fail at the first wrong byte. The hub fails at the message's
	// end, which the suite calls non-strict: until then nobody has seen any of it.
	return append(cs, wsCase{id: "6.4", name: "wrong before the last fragment",
		frames: []string{hubtest.WSFrame(hubtest.OpText, `{"header":"m","body":"a`), hubtest.WSFrame(0, "\xf4\x90"), hubtest.WSFrame(hubtest.FinBit, `"}`)}, close: 1007})
}

func closeFrame(code int, reason string) string {
	return hubtest.WSFrame(hubtest.RawClose, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

func closeCases() []wsCase {
	bye := closeFrame(1000, "")
	cs := []wsCase{
		{id: "7.1.1", name: "behind a message", frames: []string{text("1"), bye}, got: []string{"1"}, close: 1000},
		{id: "7.1.2", name: "twice", frames: []string{bye, bye}, close: 1000},
		{id: "7.1.3", name: "a ping behind it", frames: []string{bye, hubtest.WSFrame(hubtest.RawPing, "p")}, close: 1000},
		{id: "7.1.4", name: "a message behind it", frames: []string{bye, text("1")}, close: 1000},
		{id: "7.1.5", name: "within a message", frames: []string{hubtest.WSFrame(hubtest.OpText, hubtest.Say("1")[:9]), bye, hubtest.WSFrame(hubtest.FinBit, hubtest.Say("1")[9:])}, close: 1000},
		{id: "7.1.6", name: "behind a long message", frames: []string{hubtest.WSFrame(hubtest.RawText, sayOf(256<<10)), bye, hubtest.WSFrame(hubtest.RawPing, "p")}, got: []string{bodyOf(256 << 10)}, close: 1000},
		{id: "7.3.1", name: "without payload", frames: []string{hubtest.WSFrame(hubtest.RawClose, "")}, close: noCode},
		{id: "7.3.2", name: "with half a code", frames: []string{hubtest.WSFrame(hubtest.RawClose, "a")}, close: 1002},
		{id: "7.3.4", name: "with a reason", frames: []string{closeFrame(1000, "Hello World!")}, close: 1000},
		{id: "7.3.5", name: "with the longest reason", frames: []string{closeFrame(1000, hubtest.Long(123))}, close: 1000},
		{id: "7.3.6", name: "with a longer one", frames: []string{closeFrame(1000, hubtest.Long(124))}, close: 1002},
		{id: "7.5.1", name: "with a reason that is not UTF-8", frames: []string{closeFrame(1000, "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited")}, close: 1007},
		{id: "5", name: "in two", frames: []string{hubtest.WSFrame(hubtest.OpClose, "\x03"), hubtest.WSFrame(hubtest.FinBit, "\xe8")}, close: 1002},
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		cs = append(cs, wsCase{id: "7.7", name: fmt.Sprint("valid code ", code), frames: []string{closeFrame(code, "")}, close: code})
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		cs = append(cs, wsCase{id: "7.9", name: fmt.Sprint("invalid code ", code), frames: []string{closeFrame(code, "")}, close: 1002})
	}
	return cs
}

func limitCases() (cs []wsCase) {
	for _, n := range []int{64 << 10, 256 << 10, 1 << 20} {
		cs = append(cs, wsCase{id: "9.1", name: fmt.Sprint("a message of ", n), frames: []string{hubtest.WSFrame(hubtest.RawText, sayOf(n))}, got: []string{bodyOf(n)}})
	}
	for _, n := range []int{64, 256, 1 << 10, 16 << 10, 64 << 10} {
		cs = append(cs, wsCase{id: "9.3", name: fmt.Sprint("256 KiB in fragments of ", n), frames: split(hubtest.OpText, sayOf(256<<10), n), got: []string{bodyOf(256 << 10)}})
	}
	var many, bodies []string
	for i := range 1000 {
		many, bodies = append(many, text(strconv.Itoa(i))), append(bodies, strconv.Itoa(i))
	}
	return append(cs,
		wsCase{id: "9.7", name: "1000 messages", frames: many, got: bodies},
		wsCase{id: "10.1.1", name: "65536 bytes in fragments of 1300", frames: split(hubtest.OpText, sayOf(65536), 1300), got: []string{bodyOf(65536)}})
}

// TestAutobahnCases sends each case at once, frame by frame, and octet by
// octet (long ones in chops of 997): what arrives is the same.
func TestAutobahnCases(t *testing.T) {
	s := hubtest.Serve(t, channels.Options{MaxMessageBytes: 1 << 20})
	groups := []struct {
		name  string
		cases []wsCase
	}{
		{"1 framing", framingCases()},
		{"2 pings and pongs", pingCases()},
		{"3 reserved bits", reservedBitCases()},
		{"4 opcodes", opcodeCases()},
		{"5 fragmentation", fragmentCases()},
		{"6 UTF-8", utf8Cases()},
		{"7 close", closeCases()},
		{"9 and 10 limits", limitCases()},
		{"12 compression", compressionCases()},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for _, c := range g.cases {
				all := strings.Join(c.frames, "")
				chop := 1
				if len(all) > 1000 {
					chop = 997
				}
				for name, parts := range map[string][]string{"at once": {all}, "frame by frame": c.frames, "chopped": chopped(all, chop)} {
					c.run(t, s, name, parts)
				}
			}
		})
	}
	basetest.Eventually(t, "all have left", func() bool { return s.Hub.Stats().Connections == 0 })
	require.NotContains(t, s.Log.String(), "panic")
}

func chopped(s string, n int) (parts []string) {
	for len(s) > 0 {
		parts = append(parts, s[:min(n, len(s))])
		s = s[len(parts[len(parts)-1]):]
	}
	return parts
}

func (c wsCase) run(t *testing.T, s *hubtest.Server, how string, parts []string) {
	t.Run(c.id+" "+c.name+", "+how, func(t *testing.T) {
		channel := "autobahn"
		sub, err := s.Hub.Subscribe(t.Context(), channel, nil)
		require.NoError(t, err)
		defer sub.Close()
		conn := s.For(t).DialRaw()
		conn.Upgrade("/channel/"+channel+"/", c.offer...)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for _, p := range parts {
				io.WriteString(conn.C, p) // fails where the server has closed
			}
			if c.close == 0 {
				io.WriteString(conn.C, end)
			}
		}()
		got, pongs, code := collect(conn)
		if code != 0 {
			conn.WantEnd()
		}
		conn.Close()
		<-sent
		basetest.Eventually(t, "it has left", func() bool { return s.Hub.Stats().Connections == 1 })
		require.Equal(t, c.got, got)
		require.Equal(t, c.close, code)
		checkPongs(t, c.pongs, pongs)

		// Others have what the client has seen of its own, and nothing more.
		got = slices.DeleteFunc(got, func(g string) bool { return strings.HasPrefix(g, "!") })
		s.Hub.Publish(t.Context(), channel, hubtest.Msg("over", "0"))
		for m, err := range sub.Messages() {
			require.NoError(t, err)
			switch m.Header {
			case "m":
				require.NotEmpty(t, got, "%.100s", m.Body)
				require.Equal(t, got[0], string(m.Body))
				got = got[1:]
			case "over":
				require.Empty(t, got)
				return
			}
		}
	})
}

// collect reads what a case gives: bodies and refusals, pongs, and the close
// code, up to the close frame or the answer to the message "end".
func collect(c *hubtest.Conn) (got, pongs []string, code int) {
	c.T.Helper()
	for {
		f, err := c.TryRead()
		require.NoError(c.T, err, "after %q", got)
		switch f.First {
		case hubtest.RawPing:
		case hubtest.RawPong:
			pongs = append(pongs, string(f.Payload))
		case hubtest.RawClose:
			if len(f.Payload) == 0 {
				return got, pongs, noCode
			}
			return got, pongs, int(binary.BigEndian.Uint16(f.Payload))
		case hubtest.RawText, hubtest.RawText | hubtest.RSV1Bit:
			if f.First != hubtest.RawText {
				f.Payload = hubtest.Inflate(c.T, f.Payload)
			}
			var m hubtest.Message
			require.NoError(c.T, json.Unmarshal(f.Payload, &m), "%s", f.Payload)
			switch m.Header {
			case "m":
				got = append(got, string(m.Body))
			case "error":
				got = append(got, "!"+m.ErrorCode())
			case "exchange":
				if string(m.ID) == `"end"` {
					return got, pongs, 0
				}
			default:
				require.Equal(c.T, "end", m.Header)
			}
		default:
			require.Fail(c.T, "a frame that nobody sends", "%#x %q", f.First, f.Payload)
		}
	}
}

// checkPongs wants the pongs in the order of the pings, and the last for sure.
func checkPongs(t *testing.T, pings, pongs []string) {
	t.Helper()
	if len(pings) == 0 {
		require.Empty(t, pongs)
		return
	}
	require.NotEmpty(t, pongs)
	require.Equal(t, pings[len(pings)-1], pongs[len(pongs)-1])
	rest := pings
	for _, p := range pongs {
		for len(rest) > 0 && rest[0] != p {
			rest = rest[1:]
		}
		require.NotEmpty(t, rest, "a pong without a ping, or out of order: %q for %q", pongs, pings)
		rest = rest[1:]
	}
}

// --- permessage-deflate: groups 12 and 13

// finalBlock compresses a message into a block that says it is the last.
func finalBlock(text string) string {
	var b bytes.Buffer
	z, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		panic(err)
	}
	io.WriteString(z, text) // a Buffer does not fail
	z.Close()
	return b.String() + "\x00"
}

// compressionCases are messages that are compressed wrongly, which ends the
// connection, or in a way of which only few clients think. Nothing is left of one for
// the next.
func compressionCases() (cs []wsCase) {
	compressed := func(first byte, deflated string) string {
		return hubtest.WSFrame(hubtest.RSV1Bit|first, deflated)
	}
	const whole, part = hubtest.FinBit | hubtest.OpText, hubtest.OpText
	long := hubtest.Deflated(hubtest.Say(`"`+strings.Repeat("so it goes ", 50)+`"`), flate.BestSpeed)
	one, stored := hubtest.Say("1"), hubtest.Deflated(hubtest.Say("1"), flate.NoCompression)
	twoBlocks := hubtest.Deflated(one[:9], 1) + "\x00\x00\xff\xff" + hubtest.Deflated(one[9:], 1)
	next := compressed(whole, hubtest.Deflated(hubtest.Say("2"), flate.BestSpeed))
	cs = []wsCase{
		{name: "not deflated", frames: []string{compressed(whole, one), text("1")}, close: 1002},
		{name: "the reserved bit in a later part", frames: []string{compressed(part, long[:9]), compressed(hubtest.FinBit, long[9:]), text("1")}, close: 1002},
		{name: "the reserved bit only there", frames: []string{hubtest.WSFrame(part, ""), compressed(hubtest.FinBit, long), text("1")}, close: 1002},
		{name: "a compressed ping", frames: []string{compressed(hubtest.RawPing, ""), text("1")}, close: 1002},
		{name: "text that is not UTF-8", frames: []string{compressed(whole, hubtest.Deflated("\xff", 1)), text("1")}, close: 1007},
		{name: "a distance too far back", frames: []string{compressed(whole, "\x02\x13\x00\x00"), text("1")}, close: 1002},
		{name: "nothing", frames: []string{compressed(whole, "\x00"), next}, got: []string{"!bad_json", "2"}}, // RFC 7692 section 7.2.3.6
		{name: "without blocks", frames: []string{compressed(whole, ""), next}, got: []string{"!bad_json", "2"}},
		{name: "cut off", frames: []string{compressed(whole, long[:len(long)/2]), next}, got: []string{"!bad_json", "2"}},
		{name: "stored blocks", frames: []string{compressed(whole, stored), next}, got: []string{"1", "2"}},
		{name: "two blocks", frames: []string{compressed(whole, twoBlocks), next}, got: []string{"1", "2"}},
		{name: "binary", frames: []string{compressed(hubtest.FinBit|hubtest.OpBinary, hubtest.Deflated("\xff", 1)), next}, got: []string{"!binary", "2"}},
		// RFC 7692 section 7.2.3.4. The library fails on a compressed message that
		// comes right behind such a one, so only this one is wanted to arrive.
		{name: "a final block", frames: []string{compressed(whole, finalBlock(one))}, got: []string{"1"}},
	}
	for i := range cs {
		cs[i].id, cs[i].offer = "12", []string{hubtest.DeflateOffer}
	}
	return cs
}

// TestAutobahnCompression sends messages of many lengths, of text that
// compresses well and of text that does not, compressed by the client in one
// frame and in fragments, with pings between them.
func TestAutobahnCompression(t *testing.T) {
	s := hubtest.Serve(t, channels.Options{})
	random := rand.NewChaCha8([32]byte{12})
	for _, n := range []int{16, 64, 256, 1 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10} {
		noise := make([]byte, n/2)
		random.Read(noise)
		for kind, body := range map[string]string{"plain": `"` + strings.Repeat("so it goes ", n/11+1)[:n] + `"`, "noise": fmt.Sprintf(`"%x"`, noise)} {
			for _, fragment := range []int{1 << 30, 256} {
				t.Run(fmt.Sprintf("12 %s of %d in fragments of %d", kind, n, fragment), func(t *testing.T) {
					conn := s.For(t).DialMany(1, "c", hubtest.DeflateOffer)[0]
					var got []string
					for range 3 { // no context is taken over
						got = append(got, body)
						conn.Send(strings.Join(split(hubtest.RSV1Bit|hubtest.OpText, hubtest.Deflated(hubtest.Say(body), flate.BestSpeed), fragment, hubtest.WSFrame(hubtest.RawPing, "p")), ""))
						got = append(got, body)
						conn.Send(hubtest.WSFrame(hubtest.RawText, hubtest.Say(body))) // a client need not compress each message
					}
					conn.Send(end)
					have, _, code := collect(conn)
					require.Zero(t, code)
					require.Equal(t, got, have)
					conn.Close()
				})
			}
		}
	}
	basetest.Eventually(t, "all have left", func() bool { return s.Hub.Stats().Connections == 0 })
}

func TestAutobahnCompressionOffers(t *testing.T) {
	s := hubtest.Serve(t, channels.Options{CompressBytes: 100})
	const yes = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
	for offer, accepted := range map[string]string{
		"permessage-deflate": yes,
		"permessage-deflate; client_no_context_takeover; server_no_context_takeover":                yes,
		"permessage-deflate; client_max_window_bits":                                                yes,
		"permessage-deflate; client_max_window_bits=9":                                              yes, // what is written in a smaller window can be read in any
		"permessage-deflate; server_max_window_bits=15":                                             yes,
		"permessage-deflate; server_max_window_bits=9":                                              "", // which the deflate of Go cannot do
		"permessage-deflate; server_max_window_bits=9, permessage-deflate":                          yes,
		"permessage-deflate; server_max_window_bits=9; client_max_window_bits, permessage-deflate ": yes,
		"permessage-deflate; unknown":                                                               "",
		"x-webkit-deflate-frame":                                                                    "",
		"permessage-bzip2, permessage-deflate":                                                      yes,
		"permessage-foo; permessage-deflate":                                                        "",
		"permessage-deflate; client_no_context_takeover":                                            yes,
	} {
		t.Run(offer, func(t *testing.T) {
			conn := s.For(t).DialRaw()
			header := conn.Upgrade("/channel/c/", "Sec-WebSocket-Extensions: "+offer)
			require.Equal(t, accepted, header.Get("Sec-WebSocket-Extensions"))
			body := `"` + hubtest.Long(500) + `"`
			s.PublishGo("c", body)
			f, err := conn.Next()
			require.NoError(t, err)
			if accepted == "" {
				require.Equal(t, byte(hubtest.RawText), f.First)
				conn.Send(hubtest.WSFrame(hubtest.FinBit|hubtest.RSV1Bit|hubtest.OpText, hubtest.Deflated(hubtest.Say("1"), 1)))
				conn.WantClosed(1002)
				return
			}
			require.Equal(t, byte(hubtest.RawText|hubtest.RSV1Bit), f.First)
			require.Equal(t, hubtest.Say(body), string(hubtest.Inflate(t, f.Payload)))
			conn.Close()
		})
	}
}
