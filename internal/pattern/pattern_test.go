package pattern_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/pattern"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

func compile(t testing.TB, text string) *pattern.Pattern {
	t.Helper()
	p, err := pattern.Compile(text)
	require.NoError(t, err, text)
	return p
}

func TestMatch(t *testing.T) {
	for text, names := range map[string]struct{ yes, no []string }{
		"chat":        {[]string{"chat"}, []string{"chat.", "cha", "Chat", ""}},
		"chat.*":      {[]string{"chat.", "chat.a", "chat.a.b", "chat.*"}, []string{"chat", "achat.a", ""}},
		"*":           {[]string{"", "a", "chat.a"}, nil},
		"**":          {[]string{"", "a"}, nil},
		"*.log":       {[]string{".log", "a.log", "a.log.log"}, []string{"log", "a.logs"}},
		"a*b*c":       {[]string{"abc", "a1b2c", "abcabc", "abbc"}, []string{"ab", "ac", "acb", "abcd"}},
		"a*a":         {[]string{"aa", "aba"}, []string{"a", "ab"}},
		"a?c":         {[]string{"abc", "a?c"}, []string{"ac", "abbc", "aéc"}},
		"a??c":        {[]string{"aéc"}, []string{"abc"}},
		"[abc]x":      {[]string{"ax", "cx"}, []string{"dx", "x", "abx"}},
		"[a-c]x":      {[]string{"ax", "bx", "cx"}, []string{"dx", "-x"}},
		"[c-a]x":      {[]string{"bx"}, []string{"dx"}},
		"[^a-c]x":     {[]string{"dx", "^x"}, []string{"ax", "x"}},
		"[a^]x":       {[]string{"ax", "^x"}, []string{"bx"}},
		`[\]]x`:       {[]string{"]x"}, []string{`\x`}},
		`[\a-z]x`:     {[]string{"ax", "-x", "zx"}, []string{"bx"}},
		"[+--]x":      {[]string{"+x", ",x", "-x"}, []string{"ax"}},
		`a\*`:         {[]string{"a*"}, []string{"ab", `a\*`}},
		`\a\[b\?`:     {[]string{"a[b?"}, []string{"a[bc"}},
		"*[0-9]?x*":   {[]string{"a1bx", "12x", "a1b2xxc"}, []string{"1x", "abx"}},
		"你*":          {[]string{"你", "你好"}, []string{"好"}},
		"x]":          {[]string{"x]"}, []string{"x"}},
		"a*[ab]*c[d]": {[]string{"aacd", "a.b.cd", "abbccd"}, []string{"acd", "abc", "abcde"}},
	} {
		p := compile(t, text)
		require.Equal(t, text, p.String())
		for _, name := range names.yes {
			require.True(t, p.Match(name), "%q matches %q", text, name)
		}
		for _, name := range names.no {
			require.False(t, p.Match(name), "%q does not match %q", text, name)
		}
	}
}

func TestPrefix(t *testing.T) {
	for text, prefix := range map[string]string{"chat.*": "chat.", "*": "", "?a": "", "chat": "chat", `a\*b*`: "a*b", "ab[c]d": "ab", "ab?": "ab", "a*b*": "a"} {
		require.Equal(t, prefix, compile(t, text).Prefix(), text)
	}
}

func TestCompileRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"":                       "a pattern has 1 to 200 bytes, this one has 0",
		strings.Repeat("*", 201): "a pattern has 1 to 200 bytes, this one has 201",
		`a\`:                     `the pattern "a\\" ends with a backslash`,
		"a[":                     `in the pattern "a[", the class "[" has no end`,
		"a[^":                    `the class "[^" has no end`,
		"a[b":                    `the class "[b" has no end`,
		"a[b-]":                  `the class "[b-]" has no end`,
		`a[\]`:                   "has no end",
		"a[]":                    "a class is empty",
		"a[^]b":                  "a class is empty",
		"a[é]":                   "outside of ASCII",
		"a[a-é]":                 "outside of ASCII",
	} {
		_, err := pattern.Compile(text)
		require.ErrorContains(t, err, says, "%q", text)
	}
	compile(t, strings.Repeat("a", pattern.MaxBytes))
}

// slow is the rule itself: a star takes nothing, or a byte and goes on. It knows
// valid patterns only.
func slow(p, name string) bool {
	switch {
	case p == "":
		return name == ""
	case p[0] == '*':
		return slow(p[1:], name) || name != "" && slow(p, name[1:])
	case name == "":
		return false
	case p[0] == '?':
		return slow(p[1:], name[1:])
	case p[0] == '\\':
		return p[1] == name[0] && slow(p[2:], name[1:])
	case p[0] == '[':
		p, not := strings.CutPrefix(p[1:], "^")
		in := false
		for p[0] != ']' {
			switch {
			case p[0] == '\\':
				in, p = in || p[1] == name[0], p[2:]
			case p[1] == '-' && len(p) > 2:
				in, p = in || p[0] <= name[0] && name[0] <= p[2] || p[2] <= name[0] && name[0] <= p[0], p[3:]
			default:
				in, p = in || p[0] == name[0], p[1:]
			}
		}
		return in != not && slow(p[1:], name[1:])
	}
	return p[0] == name[0] && slow(p[1:], name[1:])
}

// FuzzMatch compares Match with the rule.
func FuzzMatch(f *testing.F) {
	for _, text := range []string{"chat.*", "a*a*a*b", "[^a-c]*\\*?", "[a-", "*?*[\\]]", "\\", "[z-a]b**"} {
		f.Add(text, "chat.a")
		f.Add(text, "aaaaaaab")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		p, err := pattern.Compile(text)
		if err != nil {
			return
		}
		if strings.Count(text, "*") <= 4 && len(name) <= 40 { // the rule itself takes exponential time
			require.Equal(t, slow(text, name), p.Match(name), "%q and %q", text, name)
		}
		if p.Match(name) {
			require.True(t, strings.HasPrefix(name, p.Prefix()), "%q matches %q", text, name)
		}
	})
}

// random returns a text of at most n of these characters.
func random(r *rand.Rand, alphabet string, n int) string {
	b := make([]byte, 1+r.IntN(n))
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

// A pattern matches what it matches in Redis, in KEYS and in PSUBSCRIBE.
func TestMatchesAsRedisDoes(t *testing.T) {
	client := redistest.Start(t).Client()
	r := rand.New(rand.NewPCG(1, 2))
	names := map[string]bool{"é": true, "aé": true, "你好": true}
	for len(names) < 400 {
		names[random(r, "aabbcdz.-^]*\\[", 8)] = true
	}
	_, err := client.Pipelined(t.Context(), func(pipe redis.Pipeliner) error {
		for name := range names {
			pipe.Set(t.Context(), name, "", 0)
		}
		return nil
	})
	require.NoError(t, err)
	matched, compared := 0, 0
	for compared < 2000 {
		text := random(r, "aabbcdz.-^^[[[]]]]**??\\", 12)
		p, err := pattern.Compile(text)
		if err != nil {
			continue
		}
		compared++
		keys, err := client.Keys(t.Context(), text).Result()
		require.NoError(t, err)
		want := map[string]bool{}
		for _, key := range keys {
			want[key] = true
		}
		for name := range names {
			require.Equal(t, want[name], p.Match(name), "%q and %q", text, name)
		}
		matched += len(keys)
	}
	require.Greater(t, matched, 1000)

	texts := []string{"chat.*", "c[g-i]at.?", `chat.\*`, "*[^a]", "chat"}
	sub := client.PSubscribe(t.Context(), texts...)
	defer sub.Close()
	for range texts {
		_, err := sub.Receive(t.Context())
		require.NoError(t, err)
	}
	for _, name := range []string{"chat", "chat.a", "chat.*", "cgat.b", "chat.ab", "a", "ä"} {
		n, err := client.Publish(t.Context(), name, "").Result()
		require.NoError(t, err)
		want := 0
		for _, text := range texts {
			if compile(t, text).Match(name) {
				want++
			}
		}
		require.EqualValues(t, want, n, name)
	}
}

// BenchmarkMatch has what a pattern costs for a name of the usual length, and for
// the longest name in the worst case.
func BenchmarkMatch(b *testing.B) {
	for name, c := range map[string]struct{ pattern, name string }{
		"prefix": {"chat.*", "chat.lobby.1234"},
		"stars":  {"*a*a*a*a*b", strings.Repeat("a", 200)},
		"worst":  {"*" + strings.Repeat("?", 98) + "b*", strings.Repeat("a", 200)},
	} {
		b.Run(name, func(b *testing.B) {
			p := compile(b, c.pattern)
			for b.Loop() {
				p.Match(c.name)
			}
		})
	}
}
