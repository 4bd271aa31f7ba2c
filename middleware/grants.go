package middleware

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/channels-go/channels"
)

// Grants are what a user or server may do on which channels. A channel is given
// by its name or by a pattern, in which each "*" matches any text, even none:
// "chat.*" matches every channel whose name begins with "chat.", "*" matches
// every channel.
//
// The zero Grants allow nothing. In a token, Grants are the claim "channels":
//
//	{"sub":"ann","exp":1893456000,"channels":{"subscribe":["news","chat.*"],"publish":["chat.room1"],"list":true}}
type Grants struct {
	// Subscribe also allows reading the history and the presence.
	Subscribe []string `json:"subscribe,omitempty"`
	Publish   []string `json:"publish,omitempty"`
	// List allows listing all channels with their numbers, and reading the
	// numbers of a single one.
	List bool `json:"list,omitempty"`

	server bool // of an API key
}

// Authorize is for [channels.Options].Authorize. It allows what the Grants in
// Identity.Value allow; [JWT], [APIKey] and [Anonymous] put them there. It allows a
// pattern (Request.Pattern) if a single one of the Grants' patterns covers every
// channel that it can match. A user's own channel ([channels.UserChannel]) needs no
// Grant for what Subscribe allows. It refuses everything else with the code "forbidden".
// It uses only the Identity, so it also decides on messages published over a
// WebSocket; [Tokens.Authorize] also accepts tickets. Your own Authorize may call
// it and add checks.
func Authorize(_ context.Context, r channels.Request) error {
	g, ok := r.Identity.Value.(Grants)
	if !ok {
		return forbidden("without a token or an API key, you may not %s here", r.Action)
	}
	name := r.Channel
	if r.Pattern {
		name = outline(name)
	}
	switch r.Action {
	case channels.ActionSubscribe, channels.ActionHistory, channels.ActionPresence:
		ok = matchAny(g.Subscribe, name) || r.Channel == channels.UserChannel(r.Identity.ID)
	case channels.ActionPublish:
		ok = matchAny(g.Publish, name)
	case channels.ActionList:
		ok = g.List
	default:
		ok = false
	}
	switch {
	case ok:
		return nil
	case r.Action == channels.ActionList:
		return forbidden("these credentials do not allow you to list channels")
	case r.Action == channels.ActionPublish || r.Action == channels.ActionSubscribe:
		return forbidden("these credentials do not allow you to %s on %q", r.Action, r.Channel)
	}
	return forbidden("these credentials do not allow you to read the %s of %q", r.Action, r.Channel)
}

func forbidden(format string, args ...any) error {
	return &channels.Error{Code: channels.ErrForbidden.Code, Status: http.StatusForbidden, Message: fmt.Sprintf(format, args...)}
}

// Anonymous gives g to requests without an Identity. Put it inside [JWT], with
// JWTOptions.Optional, and inside [APIKey]. An error names the invalid pattern.
func Anonymous(g Grants) (func(http.Handler) http.Handler, error) {
	if err := g.check(); err != nil {
		return nil, fmt.Errorf("middleware: Anonymous: %w", err)
	}
	g = g.clone()
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, ok := channels.IdentityFrom(r.Context()); !ok {
				r = r.WithContext(channels.WithIdentity(r.Context(), channels.Identity{Value: g}))
			}
			next.ServeHTTP(w, r)
		})
	}, nil
}

// isServer reports whether an identity is that of an API key.
func isServer(id channels.Identity) bool {
	g, _ := id.Value.(Grants)
	return g.server
}

func (g Grants) clone() Grants {
	g.Subscribe, g.Publish = slices.Clone(g.Subscribe), slices.Clone(g.Publish)
	return g
}

// check returns an error for the first pattern that cannot match any channel
// name.
func (g Grants) check() error {
	for i, p := range slices.Concat(g.Subscribe, g.Publish) {
		right := "subscribe"
		if i >= len(g.Subscribe) {
			right = "publish"
		}
		if err := channels.CheckName(strings.ReplaceAll(p, "*", "x")); err != nil {
			return fmt.Errorf("%s has the pattern %.210q; it must be a channel name of up to %d bytes, in which * matches any text, without control characters, spaces, / and ?",
				right, p, channels.MaxNameBytes)
		}
	}
	return nil
}

func matchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, name) })
}

// outline returns a name for a glob of Redis: every "*" in it stands for a place
// where the glob matches more than one text. In match, a "*" of a name is only
// matched by one of the pattern. So a pattern that matches the outline matches
// whatever the glob matches.
//
// An outline ends where one can read the glob in more than one way: at a backslash,
// and at a set that is not simply "[", characters and "]". In "[a-]]", the first "]" is
// one of the characters.
func outline(glob string) string {
	var b strings.Builder
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; c {
		case '*', '?':
			b.WriteByte('*')
		case '\\':
			return b.String() + "*"
		case '[':
			set, _, closed := strings.Cut(glob[i+1:], "]")
			if !closed || strings.Trim(set, "^") == "" || strings.HasSuffix(set, "-") || strings.ContainsAny(set, `[\*?`) {
				return b.String() + "*"
			}
			b.WriteByte('*')
			i += 1 + len(set)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// match reports whether the pattern, in which "*" matches any text, matches all
// of name. It takes at most len(pattern) × len(name) steps.
func match(pattern, name string) bool {
	star, from := -1, 0 // the last star, and the end of the text that it has matched
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0: // let the star match one more byte
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
