package redisstore

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

// replied is an error reply from Redis.
type replied string

func (e replied) Error() string { return string(e) }
func (replied) RedisError()     {}

// Redis before 7.0 wraps the error of a script into another sentence.
func TestErrorsOfOlderServersAreUnderstood(t *testing.T) {
	c := redis.NewClient(&redis.Options{})
	t.Cleanup(func() { c.Close() })
	s := newStore(t, c)
	const before = "ERR Error running script (call to f_0123456789012345678901234567890123456789): @user_script:"
	for text, want := range map[string]struct {
		says           string
		again, waiting bool // it is retried; it may go away by itself
	}{
		before + "38: @user_script: 38: -OOM command not allowed when used memory > 'maxmemory'.":                  {"maxmemory", false, true},
		"OOM command not allowed when used memory > 'maxmemory'. script: 0123, on @user_script:38.":                {"maxmemory", false, true},
		before + "38: @user_script: 38: -READONLY You can't write against a read only replica.":                    {"READONLY", true, true},
		before + "38: @user_script: 38: -MISCONF Redis is configured to save RDB snapshots":                        {"MISCONF", false, true},
		before + "38: @user_script: 38: -NOREPLICAS Not enough good replicas to write.":                            {"NOREPLICAS", true, true},
		before + "12: WRONGTYPE Operation against a key holding the wrong kind of value":                           {"another program", false, false},
		"WRONGTYPE Operation against a key holding the wrong kind of value script: 0123":                           {"another program", false, false},
		before + "12: @user_script: 12: Unknown Redis command called from Lua script":                              {"Unknown Redis command", false, false},
		"ERR max number of clients reached":                                                                        {"max number of clients", true, true},
		"BUSY Redis is busy running a script.":                                                                     {"BUSY", true, true},
		"MOVED 866 127.0.0.1:7001":                                                                                 {"NewClusterClient", true, false},
		"ERR The user executing the script can't run this command or subcommand script: 0123, on @user_script:14.": {"INFO among them", false, false},
		"NOPERM this user has no permissions to run the command":                                                   {"documentation lists", false, false},
	} {
		err := replied(text)
		require.Equal(t, want.again, notDone(err), text)
		got := s.explain(t.Context(), "append", err)
		require.ErrorContains(t, got, want.says)
		require.ErrorIs(t, got, err)
		if want.waiting {
			require.ErrorIs(t, got, store.ErrUnavailable, text)
		} else {
			require.NotErrorIs(t, got, store.ErrUnavailable, text)
		}
	}
}
