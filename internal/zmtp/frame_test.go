package zmtp_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
)

func TestAppendFrames(t *testing.T) {
	long := strings.Repeat("x", 256)
	require.Equal(t, string(bytes.Join([][]byte{zmtptest.Frame(1, "a"), zmtptest.Frame(3, long), zmtptest.Frame(0, "")}, nil)),
		string(zmtp.AppendMessage(nil, []byte("a"), []byte(long), nil)))
	require.Equal(t, string(zmtptest.Frame(4, "\x04PING\x00\x1e")), string(zmtp.AppendPing(nil, 3*time.Second)))
	require.Equal(t, string(zmtptest.Frame(4, "\x04PONGctx")), string(zmtp.AppendPong(nil, []byte("ctx"))))
}

// FuzzAppendMessage: a guarded reader gets the frames that were appended.
func FuzzAppendMessage(f *testing.F) {
	f.Add([]byte("a|b||c"))
	f.Add(bytes.Repeat([]byte("x"), 300))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames := bytes.Split(b, []byte("|"))
		sent := zmtp.AppendMessage(append(zmtptest.Greeting("NULL"), zmtptest.Ready("PUSH")...), frames...)
		c, err := openGuarded(sent, zmtp.Limits{Frame: len(b), Message: len(b), Frames: len(frames)})
		require.NoError(t, err)
		msg, err := c.RecvMsg()
		require.NoError(t, err)
		require.Len(t, msg.Frames, len(frames))
		for i := range frames {
			require.Equal(t, string(frames[i]), string(msg.Frames[i]))
		}
	})
}
