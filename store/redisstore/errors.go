package redisstore

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/store"
)

// lasting maps the codes of Redis errors that do not go away by themselves to
// what to do about them.
var lasting = map[string]string{
	"WRONGTYPE": "another program wrote a key with this prefix: choose another Options.Prefix or remove the key",
	"WRONGPASS": "check the user and password of the Redis client",
	"NOAUTH":    "the Redis client needs a user or password",
	"NOPERM":    "the Redis user has to be allowed the keys of this prefix and the commands that the package documentation lists, INFO among them",
	"CROSSSLOT": "the server is a Cluster: use redis.NewClusterClient",
	"ERR":       "",
}

// greetings maps parts of a server's replies to a client that it refuses to
// what to do about them. The code of such a reply is just ERR.
var greetings = map[string]string{
	"DB index":                         "the server has no database with this number: the last part of the URL, or redis.Options.DB, must be less than the server's setting `databases`, 16 by default",
	"SELECT is not allowed in cluster": "a Cluster has only database 0: use that",
}

// explain makes the error that a method returns: what failed, why, and what to
// do. ctx is the caller's.
func (s *Store) explain(ctx context.Context, what string, err error) error {
	if s.ctx.Err() != nil {
		return store.ErrClosed
	}
	switch e := ctx.Err(); {
	case errors.Is(e, context.DeadlineExceeded):
		return fmt.Errorf("redisstore: %s: Redis did not answer in time: %w: %w", what, store.ErrUnavailable, e)
	case e != nil:
		return fmt.Errorf("redisstore: %s: %w", what, e)
	case errors.Is(err, redis.ErrClosed):
		return fmt.Errorf("redisstore: %s: the Redis client given to New is closed: %w", what, err)
	}
	if isReply(err) {
		code := codeOf(err)
		switch {
		case strings.Contains(err.Error(), "unauthenticated"): // the reply to a long command
			code = "NOAUTH"
		case strings.Contains(err.Error(), "user executing the script can't"): // Redis 7
			code = "NOPERM"
		case code == "MOVED" && s.cluster == nil:
			return fmt.Errorf("redisstore: %s: %w (%s)", what, err, lasting["CROSSSLOT"])
		}
		if help, ok := lasting[code]; ok && !notDone(err) {
			for part, says := range greetings {
				if strings.Contains(err.Error(), part) {
					help = says
				}
			}
			if help != "" {
				help = " (" + help + ")"
			}
			return fmt.Errorf("redisstore: %s: %w%s", what, err, help)
		}
		if code == "OOM" {
			return fmt.Errorf("redisstore: %s: Redis is at its maxmemory, and nothing was stored: %w: %w", what, store.ErrUnavailable, err)
		}
	}
	return fmt.Errorf("redisstore: %s: %w: %w", what, store.ErrUnavailable, err)
}

// inScript matches how Redis before 7.0 reports an error of a command in a
// script. The "-" is there if the server refused to run the command at all.
var inScript = regexp.MustCompile(`^ERR Error running script .*?@user_script: ?\d+: -?([A-Z]{2,}) `)

// codeOf returns the code that begins a Redis error.
func codeOf(err error) string {
	text := err.Error()
	if m := inScript.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	code, _, _ := strings.Cut(text, " ")
	return code
}

// unexpected is the error for an answer that no script gives.
func unexpected(what string, reply any) error {
	return fmt.Errorf("redisstore: %s: Redis sent an unexpected answer of type %T", what, reply)
}
