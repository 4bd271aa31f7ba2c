package zmqmesh_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// TestGuardLets: what is allowed gets through as it is, without pings.
func TestGuardLets(t *testing.T) {
	message := bytes.Join([][]byte{frame(1, "channel\x00"), frame(1, ""), frame(2, strings.Repeat("x", 300)), frame(0, "")}, nil)
	var pings []string
	g := zmqmesh.ShakenGuard(script{r: bytes.NewReader(bytes.Join([][]byte{
		frame(4, "\x04PING\x00\x00one"), message, frame(4, "\x04PONG"), frame(6, "\x04PING\x00\x00"),
		frame(4, ""), frame(4, "\xffREADY"), frame(4, "\x04JOIN"), frame(4, "\x04PING\x00"), frame(6, "\x03NEW"+strings.Repeat("x", 1020)), message}, nil))},
		300, 400, 4, func(b []byte) { pings = append(pings, string(b)) })
	got, err := io.ReadAll(g)
	require.NoError(t, err)
	require.Equal(t, string(message)+string(message), string(got))
	require.Equal(t, []string{"one", ""}, pings)
}

// TestGuardRefuses: what is not allowed ends the reading before the frame that
// breaks the rule.
func TestGuardRefuses(t *testing.T) {
	ping := func([]byte) {}
	for _, c := range []struct {
		want  string
		ping  func([]byte)
		sent  [][]byte
		clean int // frames that get through
	}{
		{"at most 300 are allowed", ping, [][]byte{frame(0, "x"), frame(2, strings.Repeat("x", 301))}, 1},
		{"at most 300 are allowed", ping, [][]byte{{2, 0x40, 0, 0, 0, 0, 0, 0, 0}}, 0},
		{"at most 300 are allowed", ping, [][]byte{{2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}, 0},
		{"more than 4 frames", ping, [][]byte{frame(1, ""), frame(1, ""), frame(1, ""), frame(1, "")}, 3},
		{"more than 400 bytes", ping, [][]byte{frame(1, strings.Repeat("x", 255)), frame(0, strings.Repeat("x", 146))}, 1},
		{"flags 0x10", ping, [][]byte{frame(0x10, "")}, 0},
		{"a command has one frame", ping, [][]byte{frame(5, "\x04PING\x00\x00")}, 0},
		{"inside a message", ping, [][]byte{frame(1, "x"), frame(4, "\x04PING\x00\x00")}, 1},
		{"more than 64 commands in a minute", ping, slices.Repeat([][]byte{frame(4, "\x04JOIN")}, 65), 0},
		{"a READY after the handshake", ping, [][]byte{frame(4, "\x05READY")}, 0},
		{"a command of 1025 bytes", ping, [][]byte{frame(6, "\x03NEW"+strings.Repeat("x", 1021))}, 0},
		{"a PING with 65 bytes", ping, [][]byte{frame(4, "\x04PING\x00\x00"+strings.Repeat("x", 65))}, 0},
		{"not allowed", nil, [][]byte{frame(4, "\x04PING\x00\x00")}, 0},
		{"unexpected EOF", ping, [][]byte{frame(1, "x")}, 1},
		{"unexpected EOF", ping, [][]byte{frame(0, "x"), {0}}, 1},
	} {
		got, err := io.ReadAll(zmqmesh.ShakenGuard(script{r: bytes.NewReader(bytes.Join(c.sent, nil))}, 300, 400, 4, c.ping))
		require.ErrorContains(t, err, c.want)
		require.Equal(t, string(bytes.Join(c.sent[:c.clean], nil)), string(got), c.want)
	}
}

// TestAcceptFails: where nobody can connect, the mesh says so as long as it
// lasts, and publishing to nobody fails.
func TestAcceptFails(t *testing.T) {
	t.Parallel()
	m := open(t, options(t, "m"))
	require.NoError(t, m.Publish(t.Context(), mesh.Packet{}))
	mend := zmqmesh.FailAccept(m, errors.New("too many open files"))
	require.ErrorContains(t, m.Status().Err, "too many open files")
	require.ErrorContains(t, m.Publish(t.Context(), mesh.Packet{}), "too many open files")
	mend()
	require.NoError(t, m.Status().Err)
	require.NoError(t, m.Publish(t.Context(), mesh.Packet{}))
}
