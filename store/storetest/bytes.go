package storetest

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

var bytesCases = []Case{
	{"EntriesComeBackWhole", "Header and body come back byte for byte, whatever they hold. The Store sets Time, in milliseconds.", entriesComeBackWhole},
	{"InfoComesBackWhole", "An entry's info comes back byte for byte beside header and body, and counts in MaxBytes. Without one, Info is nil.", infoComesBackWhole},
	{"ChannelNames", "Each name is a channel of its own: long names, names in any language, names with characters that servers treat specially.", channelNames},
	{"BodyOfOneMiB", "A body of 1 MiB is stored and returned whole.", bodyOfOneMiB},
	{"BytesAreNotShared", "The caller may change its body and info after Append, and what Range returned, without changing the log.", bytesAreNotShared},
}

func entriesComeBackWhole(t *testing.T, s store.Store) {
	ch := unique("log")
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	texts := []string{
		"",
		"plain",
		" white\tspace\r\n ",
		"\x00",
		"a\x00b:c\x00",
		"Grüße, 世界 🎉 \u2028",
		`{"json":"\u0000 \" \\"}`,
		"\xff\xfe not UTF-8",
		string(every),
		strings.Repeat("long ", 5000),
	}
	for _, text := range texts {
		appendOne(t, s, ch, store.Entry{Header: text, Body: []byte(text + "!")}, plenty)
		appendOne(t, s, ch, store.Entry{Header: text}, plenty)
		appendOne(t, s, ch, store.Entry{Body: []byte(text)}, plenty)
	}
	all := readN(t, s, ch, 3*len(texts))
	for i, text := range texts {
		require.Equal(t, text, all[3*i].Header)
		require.Equal(t, text+"!", string(all[3*i].Body))
		require.Equal(t, text, all[3*i+1].Header)
		require.Empty(t, all[3*i+1].Body)
		require.Empty(t, all[3*i+2].Header)
		require.Equal(t, text, string(all[3*i+2].Body))
	}

	// The Offset and Time that the caller sets don't matter.
	pos := appendOne(t, s, ch, store.Entry{Offset: 99, Time: time.Unix(1, 0), Body: body(1)}, plenty)
	last := readN(t, s, ch, 3*len(texts)+1)[3*len(texts)]
	require.Equal(t, pos.Offset, last.Offset)
	require.WithinDuration(t, time.Now(), last.Time, time.Hour)
	require.True(t, last.Time.Truncate(time.Millisecond).Equal(last.Time), "%v is more precise than a millisecond", last.Time)
}

func infoComesBackWhole(t *testing.T, s store.Store) {
	ch := unique("log")
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	infos := [][]byte{nil, []byte("plain"), {}, []byte(" "), []byte("  white\tspace\r\n "), {0}, every, nil,
		[]byte(`{"client":"a-1","user":"世界","info":"\u0000"}`), bytes.Repeat([]byte("long "), 5000)}
	for i, info := range infos {
		appendOne(t, s, ch, store.Entry{Header: "h", Body: body(i), Info: info}, plenty)
		appendOne(t, s, ch, store.Entry{Info: info}, plenty)
	}
	all := readN(t, s, ch, 2*len(infos))
	for i, info := range infos {
		require.Equal(t, "h", all[2*i].Header)
		require.Equal(t, string(body(i)), string(all[2*i].Body))
		require.Empty(t, all[2*i+1].Header)
		require.Empty(t, all[2*i+1].Body)
		for _, e := range all[2*i : 2*i+2] {
			if len(info) == 0 {
				require.Nil(t, e.Info)
			} else {
				require.Equal(t, info, e.Info)
			}
		}
	}

	bound := unique("bound")
	for i := range 9 {
		appendOne(t, s, bound, store.Entry{Header: "h", Body: body(i), Info: make([]byte, 100)}, plenty)
	}
	one := 1 + len(body(1)) + 100
	require.Equal(t, []uint64{1, 2}, offsets(read(t, s, bound, store.Query{Limit: 9, MaxBytes: 3*one - 1})))
	require.Equal(t, []uint64{7, 8, 9}, offsets(read(t, s, bound, store.Query{Limit: 9, MaxBytes: 3 * one, Newest: true})))
}

func channelNames(t *testing.T, s store.Store) {
	base := unique("name")
	names := []string{
		base,
		base + ":",
		base + ":meta",
		base + "*",
		base + "?",
		base + "[a-z]",
		base + "{tag}",
		"{" + base + "}",
		base + " with space",
		base + "/slash/",
		base + "%2F",
		base + "\x00",
		base + "UPPER",
		base + "upper",
		base + strings.Repeat("ж世", 40), // above 200 bytes
		base + strings.Repeat("x", 200),
		base + strings.Repeat("x", 201),
	}
	for i, name := range names {
		appendOne(t, s, name, store.Entry{Header: name, Body: body(i)}, plenty)
	}
	for i, name := range names {
		e := readN(t, s, name, 1)[0]
		require.Equal(t, name, e.Header)
		require.Equal(t, string(body(i)), string(e.Body))
	}
}

func bodyOfOneMiB(t *testing.T, s store.Store) {
	ch := unique("log")
	big := []byte(`"` + strings.Repeat("0123456789abcdef", 1<<16) + `"`)
	appendOne(t, s, ch, store.Entry{Header: "big", Body: big}, plenty)
	appendOne(t, s, ch, store.Entry{Header: "small", Body: body(2)}, plenty)
	got := readN(t, s, ch, 2)[0].Body
	require.True(t, bytes.Equal(big, got), "a body of %d bytes came back as another body, of %d bytes", len(big), len(got))
}

func bytesAreNotShared(t *testing.T, s store.Store) {
	ch := unique("log")
	b, info := []byte(`"original"`), []byte("original")
	appendOne(t, s, ch, store.Entry{Body: b, Info: info}, plenty)
	require.Equal(t, `"original"`, string(b), "Append changed the body")
	require.Equal(t, "original", string(info), "Append changed the info")
	copy(b, `"changed!"`)
	copy(info, "changed!")
	appendOne(t, s, ch, store.Entry{Body: []byte(`"second"`), Info: []byte("second")}, plenty)

	got := readN(t, s, ch, 2)
	require.Equal(t, `"original" original`, string(got[0].Body)+" "+string(got[0].Info))
	_ = append(got[0].Body, "more"...)
	require.Equal(t, "original", string(got[0].Info), "the body and the info share memory")
	copy(got[0].Body, `"changed!"`)
	copy(got[0].Info, "changed!")
	_ = append(got[0].Info, "more"...)
	require.Equal(t, `"second" second`, string(got[1].Body)+" "+string(got[1].Info), "two entries share memory")
	got[1] = store.Entry{}

	got = readN(t, s, ch, 2)
	require.Equal(t, `"original" original`, string(got[0].Body)+" "+string(got[0].Info))
	require.Equal(t, `"second" second`, string(got[1].Body)+" "+string(got[1].Info))
}
