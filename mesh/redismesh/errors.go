package redismesh

import (
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// helps maps the codes of Redis errors that do not go away by themselves to
// what to do about them.
var helps = map[string]string{
	"WRONGPASS": "check the user and password of the Redis client",
	"NOAUTH":    "the Redis client needs a user or password",
	"NOPERM":    "the Redis user has to be allowed the pub/sub channels and commands that the package documentation lists",
}

// explain adds to err what to do about it.
func (l *link) explain(err error) error {
	if errors.Is(err, redis.ErrClosed) && l.mesh.ctx.Err() == nil {
		return fmt.Errorf("the Redis client given to New, or its connection, is closed: %w", err)
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
