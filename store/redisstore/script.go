package redisstore

import (
	"context"
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/internal/backoff"
)

//go:embed lua
var lua embed.FS

// script is a Lua program that Redis runs atomically. Redis remembers it by its
// SHA-1 until it restarts.
type script struct{ text, sha string }

func load(name string) *script {
	text, err := lua.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err) // the file is missing from the binary; every test would fail
	}
	sum := sha1.Sum(text)
	return &script{string(text), hex.EncodeToString(sum[:])}
}

var (
	appendScript   = load("append")
	beginScript    = load("begin")
	clockScript    = load("clock")
	rangeScript    = load("range")
	topsScript     = load("tops")
	prolongScript  = load("prolong")
	reportScript   = load("report")
	stageScript    = load("stage")
	presenceScript = load("presence")
	beatScript     = load("beat")
	nodesScript    = load("nodes")
	nodeScript     = load("node")
	forgetScript   = load("forget")
	unlistScript   = load("unlist")
	countScript    = load("count")
	pageScript     = load("page")
	holdScript     = load("hold")
	heldScript     = load("held")
	unholdScript   = load("unhold")
)

// call is one run of a script. Reads are scripts too, since a Cluster client
// may send plain reads to Redis replicas, which can be behind.
type call struct {
	script *script
	keys   []string
	args   []any
	// Indexes in args of what is sent otherwise once an answer was lost, or 0.
	since int // of the time since when the call may have been done
	epoch int // of the epoch for a log that begins: the first attempt's may have been lost with its log since

	ctx  context.Context // the caller's; once it has ended, the call is not retried
	done chan struct{}   // if not nil, closed when cmd has the outcome

	cmd   *redis.Cmd // the last attempt
	first time.Time  // when the first attempt was sent
	lost  bool       // an answer was lost, so the call may have been done

	earliest int64 // if lost: the call was not done before this time, in milliseconds by the server's clock
}

func newCall(s *script, keys []string, args ...any) *call {
	return &call{script: s, keys: keys, args: args}
}

// once is a command that go-redis must not repeat by itself.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }

// command returns the command for the next attempt.
func (c *call) command(ctx context.Context, whole bool) redis.Cmder {
	args := make([]any, 0, 3+len(c.keys)+len(c.args))
	if whole {
		args = append(args, "eval", c.script.text, len(c.keys))
	} else {
		args = append(args, "evalsha", c.script.sha, len(c.keys))
	}
	for _, key := range c.keys {
		args = append(args, key)
	}
	args = append(args, c.args...)
	own := args[len(args)-len(c.args):]
	if c.since > 0 {
		if c.first.IsZero() {
			c.first = time.Now()
		}
		if c.lost {
			own[c.since] = c.earliest
		}
	}
	if c.epoch > 0 && c.lost {
		own[c.epoch] = newID()
	}
	c.cmd = redis.NewCmd(ctx, args...)
	return once{c.cmd}
}

// retryWaits are the pauses before the retries of a call that Redis refused for
// the moment.
var retryWaits = []time.Duration{10 * time.Millisecond, 40 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond}

// send runs calls in one pipeline. Calls for the same server run in order. It
// retries calls that failed but may succeed later. The outcome of each call is
// in its cmd.
func (s *Store) send(ctx context.Context, calls []*call) {
	defer func() { finish(calls...) }() // those that are still in calls by then
	whole := false                      // the server does not know a script: send its whole text
	for attempt := 0; ; {
		s.pipeline(ctx, s.withClocks(ctx, calls), whole)
		var again []*call
		unknown := false
		for _, c := range calls {
			switch err := c.cmd.Err(); {
			case err == nil:
				finish(c)
			case !whole && strings.HasPrefix(err.Error(), "NOSCRIPT"):
				unknown = true
				again = append(again, c)
			case (notDone(err) || broken(err)) && c.ctx.Err() == nil:
				c.lost = c.lost || !notDone(err)
				again = append(again, c)
			default:
				finish(c)
			}
		}
		calls, whole = again, unknown
		if len(again) == 0 {
			return
		}
		if unknown {
			continue
		}
		if attempt == len(retryWaits) {
			return
		}
		if s.cluster != nil {
			s.cluster.ReloadState(ctx) // the slot may have another master now
		}
		if !backoff.Pause(ctx, retryWaits[attempt]) {
			return
		}
		attempt++
	}
}

func finish(calls ...*call) {
	for _, c := range calls {
		if c.done != nil {
			close(c.done)
		}
	}
}

// clockSlack is how far the clocks of a Redis master and its replica, which may
// be the master by now, are expected to differ. A larger value would make
// Append fail if a short log does not reach back that far.
const clockSlack = 100 * time.Millisecond

// withClocks sets earliest for the calls that may have been done already. It
// returns the calls that can be sent, in order. earliest is a time by the
// server's clock and not a duration: a duration would count from when the
// server gets the call, and that may be long after it was sent if the
// connection has to be made anew.
func (s *Store) withClocks(ctx context.Context, calls []*call) (ready []*call) {
	var asks []*call
	for _, c := range calls {
		if c.lost && c.since > 0 {
			asks = append(asks, newCall(clockScript, c.keys[:1]))
		}
	}
	if len(asks) == 0 {
		return calls
	}
	s.pipeline(ctx, asks, true)
	read := time.Now()
	for _, c := range calls {
		if c.lost && c.since > 0 {
			clock, err := asks[0].cmd.Int64()
			asks = asks[1:]
			if err != nil {
				c.cmd.SetErr(err) // as if this were the call's own error
				continue
			}
			c.earliest = clock - (read.Sub(c.first) + clockSlack).Milliseconds()
		}
		ready = append(ready, c)
	}
	return ready
}

func (s *Store) pipeline(ctx context.Context, calls []*call, whole bool) {
	if len(calls) == 0 {
		return
	}
	if len(calls) == 1 {
		cmd := calls[0].command(ctx, whole)
		if err := s.client.Process(ctx, cmd); err != nil && calls[0].cmd.Err() == nil {
			calls[0].cmd.SetErr(err)
		}
		return
	}
	p := s.client.Pipeline()
	for _, c := range calls {
		p.Process(ctx, c.command(ctx, whole)) // only queues the command
	}
	// An error reply belongs to one of the commands, unless none was sent: a
	// server that refuses the client answers the greeting with an error.
	one := func(c *call) bool { return c.cmd.Err() != nil }
	if _, err := p.Exec(ctx); err != nil && !(isReply(err) && slices.ContainsFunc(calls, one)) {
		for _, c := range calls {
			if c.cmd.Err() == nil && c.cmd.Val() == nil {
				c.cmd.SetErr(err)
			}
		}
	}
}

// do runs calls and returns the first error. It returns when ctx ends, even if
// Redis hangs: unless the client sets ContextTimeoutEnabled, go-redis bounds a
// read only by its own timeout.
func (s *Store) do(ctx context.Context, calls ...*call) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(s.ctx, cancel)
	defer stop()
	for _, c := range calls {
		c.ctx = ctx
	}
	done := make(chan struct{})
	ok := s.calls.Run(func() {
		defer close(done)
		s.send(ctx, calls)
	})
	if !ok {
		return context.Canceled // explain turns it into ErrClosed
	}
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, c := range calls {
		if err := c.cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
	}
	return nil
}

// isReply reports whether err is a reply from Redis.
func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

// refusals are the error codes of a server that did nothing, and that may
// succeed a moment later or on another server.
var refusals = []string{"READONLY", "LOADING", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "MOVED", "ASK", "BUSY", "NOREPLICAS"}

// notDone reports whether err proves that the command had no effect, and
// whether a retry may succeed.
func notDone(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	return isReply(err) && (slices.Contains(refusals, codeOf(err)) || strings.HasPrefix(err.Error(), "ERR max number of clients"))
}

// broken reports whether err leaves the outcome open and may go away.
func broken(err error) bool {
	return !isReply(err) && !errors.Is(err, redis.ErrClosed) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}
