package connect

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func rpc(t *testing.T, k kind) {
	s := serve(t, settings{})
	alice := s.open(k, "alice", nil)
	alice.online()
	for _, data := range []string{`{"a":[1,"🙂"]}`, `null`, `"` + strings.Repeat("x", 100_000) + `"`} {
		answer, err := alice.rpc("echo", data)
		require.NoError(t, err)
		require.Equal(t, data, answer)
	}
	who, err := alice.rpc("whoami", "null")
	require.NoError(t, err)
	require.Equal(t, `"alice"`, who)
	_, err = alice.rpc("no such method", "1")
	refused(t, 104, err)
	_, err = alice.rpc("refuse", "1")
	refused(t, 103, err)
	alice.stayed()
}

// rpcPublish publishes with what a plain publish of the protocol cannot say.
func rpcPublish(t *testing.T, k kind) {
	s := serve(t, settings{history: 10})
	alice, bob := s.open(k, "alice", nil), s.open(k, "bob", nil)
	alice.online()
	bob.online()
	bob.in("c", interest{})
	publish := func(more string) (r struct {
		Offset    uint64
		Epoch     string
		Duplicate bool
	}) {
		t.Helper()
		answer, err := alice.rpc("publish", `{"channel":"c","header":"say","body":{"n":1},"key":"k"`+more+`}`)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal([]byte(answer), &r), answer)
		return r
	}
	first := publish("")
	require.EqualValues(t, 1, first.Offset)
	require.NotEmpty(t, first.Epoch)
	require.False(t, first.Duplicate)
	again := publish("")
	require.EqualValues(t, 1, again.Offset)
	require.True(t, again.Duplicate, "its key was seen")
	s.say("c", "2")
	heard := bob.hears("c", `{"n":1}`, "2")
	require.Equal(t, map[string]string{"header": "say"}, heard[0].Tags)
	require.NotNil(t, heard[0].Info)
	require.Equal(t, "alice", heard[0].Info.User)

	_, err := alice.rpc("publish", `{"channel":"quiet","body":1}`)
	refused(t, 103, err)
	_, err = alice.rpc("publish", `{"channel":"c","header":"exchange","body":1}`)
	refused(t, 107, err)
	alice.stayed()
}

func send(t *testing.T, k kind) {
	s := serve(t, settings{})
	alice := s.open(k, "alice", nil)
	alice.online()
	require.NoError(t, alice.send(`{"read":7}`))
	require.Equal(t, call{"alice", `{"read":7}`}, next(t, "what was sent", s.calls))
	alice.says("c", "1")
	alice.stayed()
}
