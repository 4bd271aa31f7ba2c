package fanout

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJoined(t *testing.T) {
	reply := func(s string) *Frame { return NewReply(ClientJSON, append(make([]byte, ReplyRoom), s...)) }
	lines := func(s ...string) string { return string(reply(strings.Join(s, "\n")).ws) }
	long, longer := strings.Repeat("x", 200), strings.Repeat("y", 70_000)
	half := strings.Repeat("z", joinedBytes/2)
	end := NewClose(1000, "bye")
	for _, c := range []struct {
		frames []*Frame
		want   string
	}{
		{[]*Frame{reply("a")}, lines("a")},
		{[]*Frame{reply("a"), reply("b"), reply(long)}, lines("a", "b", long)},
		{[]*Frame{reply("a"), Ping, reply("b")}, lines("a", "{}", "b")},
		{[]*Frame{reply("a"), reply(longer), reply("b"), reply("c")}, lines("a") + lines(longer) + lines("b", "c")},
		{[]*Frame{reply(half), reply(half[1:]), reply("a")}, lines(half, half[1:]) + lines("a")},
		{[]*Frame{reply("a"), reply("b"), NewPong(nil), reply("c"), end}, lines("a", "b") + string(NewPong(nil).ws) + lines("c") + string(end.ws)},
	} {
		require.Equal(t, c.want, string(appendJoined(nil, ClientJSON, c.frames)))
	}
}
