package redismesh

import (
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// helps begin answers of Redis that do not go away by themselves, with what to
// do about each.
var helps = map[string]string{
	"WRONGPASS": "check the user and password of the Redis client",
	"NOAUTH":    "the Redis client needs a user or password",
	"NOPERM":    "the Redis user has to be allowed the pub/sub channels and the commands that this package's documentation lists",
}

// explain says what helps.
func (l *link) explain(err error) error {
	if errors.Is(err, redis.ErrClosed) && l.mesh.ctx.Err() == nil {
		return fmt.Errorf("the Redis client that New was given, or its connection, is closed: %w", err)
	}
	var reply redis.Error
	if errors.As(err, &reply) {
		code, _, _ := strings.Cut(reply.Error(), " ")
		if help := helps[code]; help != "" {
			return fmt.Errorf("%w (%s)", err, help)
		}
	}
	return err
}
