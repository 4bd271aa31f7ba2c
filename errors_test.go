package channels_test

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// An app may return them as they are: clients get a code and a sentence.
func TestEachErrorHasAMessage(t *testing.T) {
	codes := map[string]bool{}
	for _, e := range channels.AllErrors() {
		require.NotEmpty(t, e.Code)
		require.False(t, codes[e.Code], e.Code)
		codes[e.Code] = true
		require.Greater(t, len(e.Message), 15, e.Code)
		require.NotZero(t, e.Status, e.Code)
	}
}

// The documentation of Error lists all codes.
func TestEachCodeIsDocumented(t *testing.T) {
	b, err := os.ReadFile("errors.go")
	require.NoError(t, err)
	for _, e := range channels.AllErrors() {
		require.Regexp(t, "(?m)^//\t"+e.Code+" +[0-9a-z]", string(b))
	}
}

// A key that can be of no use is refused before the app's code has work with
// the message, and before there is a channel.
func TestAKeyIsRefusedBeforeOnPublish(t *testing.T) {
	called := 0
	hub := newHub(t, channels.Options{Channel: keeps, OnPublish: func(context.Context, *channels.Publication) error { called++; return nil }})
	for name, o := range map[string]channels.PublishOptions{"a": {Key: "k"}, "h": {Key: "k", Local: true}} {
		_, err := hub.PublishWith(t.Context(), name, msg("x", "1"), o)
		require.ErrorIs(t, err, channels.ErrNoHistory)
	}
	require.Zero(t, called)
	require.Zero(t, hub.Stats().Channels)
	publishWith(t, hub, "h", msg("x", "1"), channels.PublishOptions{Key: "k"})
	require.Equal(t, 1, called)
}
