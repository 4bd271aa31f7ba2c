package connect

import (
	"strings"
	"time"
)

// The tokens of these tests say what they are for: a user's name, or a channel's for
// that of a subscription, and a condition.
//
//	alice           is alice's, and never ends
//	alice for 2s    ends 2 s after it was shown
//	alice expired   has ended
//	forged          is nobody's

// readToken returns whose a token is, and how long it is still good: 0 for ever, and
// negative if it has ended. It is false for a token that is nobody's.
func readToken(token string) (name string, left time.Duration, ok bool) {
	name, condition, _ := strings.Cut(token, " ")
	switch rest, limited := strings.CutPrefix(condition, "for "); {
	case limited:
		left, _ = time.ParseDuration(rest)
	case condition == "expired":
		left = -1
	}
	return name, left, name != "forged" && name != ""
}

// What the names of channels mean:
//
//	secret…   nobody may subscribe
//	quiet…    nobody may publish
//	ticket…   a subscription needs a token for the channel
//	plain…    there is neither history nor presence
//
// Others are everybody's.

func secret(channel string) bool { return strings.HasPrefix(channel, "secret") }
func quiet(channel string) bool  { return strings.HasPrefix(channel, "quiet") }
func ticket(channel string) bool { return strings.HasPrefix(channel, "ticket") }
func plain(channel string) bool  { return strings.HasPrefix(channel, "plain") }

// about is what presence and publications tell of a user.
func about(user string) string { return `{"name":"` + user + `"}` }
