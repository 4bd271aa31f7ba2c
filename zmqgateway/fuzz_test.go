package zmqgateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/zmqgateway"
)

// FuzzASCII: escaped JSON is ASCII and the same value.
func FuzzASCII(f *testing.F) {
	for _, s := range []string{`"안녕"`, `{"a":"😀\u00e9é\\"}`, `"\ud83d"`, `[1,"\""]`, "\"\xff\"", `"\\é"`, "\"\u2028\x7f\"", "1e999"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		a := zmqgateway.AppendASCII([]byte("x"), b)[1:]
		require.Equal(t, before, b)
		for _, c := range a {
			require.Less(t, c, byte(utf8.RuneSelf))
		}
		if !json.Valid(b) {
			return // the hub has refused it
		}
		value := func(b []byte) (v any) {
			d := json.NewDecoder(bytes.NewReader(b))
			d.UseNumber() // for numbers beyond float64
			require.NoError(t, d.Decode(&v))
			return v
		}
		require.Equal(t, value(b), value(a))
	})
}

// FuzzLatin1: characters of Latin-1 survive; any other becomes one "?".
func FuzzLatin1(f *testing.F) {
	f.Add("héllo")
	f.Add("안a")
	f.Fuzz(func(t *testing.T, s string) {
		b := zmqgateway.ToLatin1(s)
		require.Len(t, b, utf8.RuneCountInString(s))
		require.Equal(t, b, zmqgateway.ToLatin1(zmqgateway.FromLatin1(b)))
		fits := true
		for _, r := range s {
			fits = fits && r <= 0xff
		}
		if fits {
			require.Equal(t, s, zmqgateway.FromLatin1(b))
		}
	})
}

// answering answers requests, and checks what it is asked.
type answering struct {
	zmqgateway.Bridge
	t *testing.T
}

func (a answering) Publish(_ context.Context, _ string, m channels.Message) (channels.Result, error) {
	require.True(a.t, utf8.ValidString(m.Header))
	return channels.Result{}, nil
}

func (a answering) Channels(context.Context, channels.ChannelsQuery) (channels.ChannelsPage, error) {
	return channels.ChannelsPage{}, nil
}

func (a answering) Channel(context.Context, string) (channels.ChannelInfo, error) {
	return channels.ChannelInfo{}, nil
}

// FuzzRequest: any frames get one answer in JSON, in the envelope that they came
// in, and only bad_token without the token.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("|publish|a|h|1|0123456789abcdef"))
	f.Add([]byte("id||list|0123456789abcdef"))
	f.Add([]byte("channel|a"))
	f.Add([]byte("||list"))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames := bytes.Split(b, []byte("|"))
		envelope, answer := zmqgateway.Answer(t, answering{t: t}, []byte("0123456789abcdef"), frames)
		require.True(t, json.Valid(answer))
		require.LessOrEqual(t, len(envelope), len(frames))
		if n := len(envelope); n > 0 {
			require.Equal(t, frames[:n], envelope)
			require.Empty(t, envelope[n-1]) // other frames may be empty, too
		}
		if !bytes.HasSuffix(b, []byte("|0123456789abcdef")) && string(b) != "0123456789abcdef" {
			require.Contains(t, string(answer), "bad_token")
		}
	})
}
