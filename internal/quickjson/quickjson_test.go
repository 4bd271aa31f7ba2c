package quickjson_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"

	"github.com/channels-go/channels/internal/quickjson"
)

var deep = strings.Repeat("[", quickjson.MaxDepth) + strings.Repeat("]", quickjson.MaxDepth)

var yes = []string{
	`1`, `0`, `-0`, `-1.5e+10`, `12E-3`, `0.0`, `1e5`, `true`, `false`, `null`, `""`, `"a"`, `"12345678"`, `"1234567"`,
	`"123456789"`, `"ünïcödé and more"`, `"\"\\\/\b\f\n\r\t\u00fF"`, `"12345\u0000"`, `"1234567\n"`, "\"\u2028\"", "\"\x7f\"",
	`{}`, `[]`, `[ ]`, `{	}`, ` 1 `, `[1,2]`, `{"a":1}`, `{"a":1,"b":[true,{"c":null}]}`, ` { "a" : [ 1 , "2" ] , "b" : { } } `,
	`[[],{},[[]]]`, `"😀"`, deep, `{"a":{"b":{}},"c":[[{}]]}`,
}

var no = []string{
	``, ` `, `"`, `"a`, `"\`, `"\"`, `"\x"`, `"\u12g4"`, `"\u12`, `"1234567`, `"12345678`, "\"a\tb\"", "\"1234567\x00\"", "\"12345678\x1f9012345\"",
	`01`, `-`, `-01`, `1.`, `.5`, `1e`, `1e+`, `+1`, `1x`, `1 2`, `tru`, `True`, `nul`, `nullx`, `truefalse`,
	`{`, `[`, `}`, `]`, `[1,]`, `[,1]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{a:1}`, `{1:2}`, `[1}`, `{"a":1]`, `[1]]`, `{}{}`, `[1 2]`, `{"a" 1}`, `{"a":1 "b":2}`, `{"a":1,2}`, `{"a`, `{"a":`, `{"a",`,
	"\"\xff\"", "\"12345678\xff\"", "\"\xed\xa0\x80\"", "\ufeff1", "[\"\xc3\"]",
	// Valid, but left to a parser.
	"[1,\n2]", "[1]\r\n", "[" + deep + "]",
}

func TestValid(t *testing.T) {
	for _, s := range yes {
		require.True(t, quickjson.Valid([]byte(s)), "%s", s)
		require.True(t, json.Valid([]byte(s)), "%s", s)
	}
	for _, s := range no {
		require.False(t, quickjson.Valid([]byte(s)), "%q", s)
	}
}

func TestDeeper(t *testing.T) {
	for _, c := range []struct {
		text  string
		depth int
	}{
		{``, 0}, {`1`, 0}, {`[]`, 1}, {`[{"a":[]}]`, 3}, {`[[],[],[[]]]`, 3}, {`"[[["`, 0}, {`["\"[[",{}]`, 2},
		{strings.Repeat("[", 700) + strings.Repeat("]", 700), 700},
	} {
		if c.depth > 0 {
			require.True(t, quickjson.Deeper([]byte(c.text), c.depth-1), "%.50s", c.text)
		}
		require.False(t, quickjson.Deeper([]byte(c.text), c.depth), "%.50s", c.text)
	}
	require.True(t, quickjson.Deeper([]byte(strings.Repeat("[", 21)), 10), "a beginning")
}

// Each byte, at each place in a string and with any neighbour.
func TestEachByteOfAString(t *testing.T) {
	beside := []byte("\x1f !\"#[\\]\x7f\x80\xffa")
	for c := range 256 {
		for at := range 17 {
			for _, other := range beside {
				b := []byte(`"` + strings.Repeat("a", 18) + `"`)
				b[1+at], b[2+at] = byte(c), other
				require.Equal(t, json.Valid(b) && utf8.Valid(b), quickjson.Valid(b), "%q", b)
				b[1+at], b[2+at] = other, byte(c)
				require.Equal(t, json.Valid(b) && utf8.Valid(b), quickjson.Valid(b), "%q", b)
			}
		}
	}
}

// Valid accepts exactly the JSON in UTF-8 that is on one line and not too deep.
func FuzzValid(f *testing.F) {
	for _, s := range append(yes, no...) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		got := quickjson.Valid(b)
		require.Equal(t, before, b)
		want := json.Valid(b) && utf8.Valid(b) && !bytes.ContainsAny(b, "\n\r") && depth(b) <= quickjson.MaxDepth
		require.Equal(t, want, got, "%q", b)
	})
}

func depth(b []byte) (deepest int) {
	d := json.NewDecoder(bytes.NewReader(b))
	for now := 0; ; {
		t, err := d.Token()
		if err != nil {
			return deepest
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			now++
			deepest = max(deepest, now)
		case json.Delim('}'), json.Delim(']'):
			now--
		}
	}
}

// BenchmarkValid compares with the alternatives.
func BenchmarkValid(b *testing.B) {
	for name, body := range map[string]string{
		"text of 100":    `"` + strings.Repeat("word ", 20) + `"`,
		"chat message":   `{"text":"See you at half past nine, in front of the station.","user":{"id":4711,"name":"Ann"},"at":1764300000.25}`,
		"numbers":        `[` + strings.Repeat(`1234.5,-17,0,`, 20) + `1]`,
		"text of 64 KiB": `"` + strings.Repeat("word ", 13107) + `"`,
	} {
		text := []byte(body)
		b.Run(name+"/quickjson", func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				quickjson.Valid(text)
			}
		})
		b.Run(name+"/gjson and UTF-8", func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				_ = utf8.Valid(text) && gjson.ValidBytes(text)
			}
		})
	}
}
