package channels

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// UserPrefix is what the names of users' channels begin with (see [UserChannel]). An
// app gives such names to nothing else. Options.Channel can tell users' channels by it.
const UserPrefix = "@user:"

// UserChannel returns the name of a user's own channel: [UserPrefix] and the
// Identity.ID. [Hub.Send] publishes on it.
//
// Of all clients, only the user may subscribe to it, and read its history, its presence
// and its numbers: from each connection, on each replica. The hub sees to that itself,
// before it asks Authorize, which may still refuse. The hub leaves users' channels out
// of lists for clients, patterns of clients do not match them, and clients cannot
// publish there (see Publishers). Go code and Hub.SubscribeUser may do anything, as on
// other channels.
//
// The ID may be any text, even one that is not valid UTF-8. Two users never share a
// channel. Bytes that cannot stand in a channel's name are escaped as in URLs, and so is
// "%": that of "a/b" is "@user:a%2Fb". Of an ID that is too long, the name has the SHA-256 instead.
// The empty ID is nobody's: for it, UserChannel returns "", which is no channel.
func UserChannel(user string) string {
	if user == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString(UserPrefix)
	for rest := user; rest != ""; {
		r, n := utf8.DecodeRuneInString(rest)
		text := rest[:n]
		rest = rest[n:]
		if r == utf8.RuneError && n == 1 || strings.ContainsRune("%/*?", r) || isSpaceOrControl(r) {
			for _, c := range []byte(text) {
				b.WriteByte('%')
				b.WriteByte(hexDigits[c>>4])
				b.WriteByte(hexDigits[c&15])
			}
		} else {
			b.WriteString(text)
		}
		if b.Len() > MaxNameBytes {
			sum := sha256.Sum256([]byte(user))
			return UserPrefix + "%sha256-" + hex.EncodeToString(sum[:]) // no escaped byte begins with %s
		}
	}
	return b.String()
}

const hexDigits = "0123456789ABCDEF"

// Send publishes a message on a user's own channel. It reaches all connections of the
// user that are subscribed to it, on all replicas. If the channel keeps history, a user
// who is away gets it later. To publish with options, give [UserChannel] to
// [Hub.PublishWith]. The errors are those of [Hub.Publish]; ErrBadChannel is for the
// empty user.
func (h *Hub) Send(ctx context.Context, user string, m Message) (Result, error) {
	if user == "" {
		return Result{}, errNobody
	}
	return h.Publish(ctx, UserChannel(user), m)
}

var errNobody = ErrBadChannel.saying("the empty user is nobody, and has no channel; publish for an Identity.ID")

func isUserChannel(name string) bool { return strings.HasPrefix(name, UserPrefix) }

// afterUsers is behind all names of users' channels and before the next other one: no
// name has this byte.
const afterUsers = UserPrefix + "\xff"

// mayReach refuses clients what concerns another user's channel. Every door asks it, by
// authorize. It does not decide about publishing: mayPublish does.
func (r *Request) mayReach() error {
	switch {
	case !isUserChannel(r.Channel) || r.Action == ActionPublish:
		return nil
	case r.Pattern:
		return ErrForbidden.saying("the patterns of clients do not match users' channels, whose names begin with %s; subscribe to your own by its name", UserPrefix)
	case r.Channel != UserChannel(r.Identity.ID):
		return ErrForbidden.saying("%.210q belongs to a user, and this client is not that user", r.Channel)
	}
	return nil
}
