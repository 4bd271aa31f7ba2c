package channels_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// A body of Go code that is no JSON: the error says where, and how to make one.
func TestPublishSaysWhereABodyIsNoJSON(t *testing.T) {
	hub := newHub(t, channels.Options{})
	for body, where := range map[string]string{`hello`: "at byte 1", `{"a":1,}`: "at byte 8", `{"a":`: "at byte 5: unexpected end", `"a" "b"`: "at byte 5"} {
		_, err := hub.Publish(t.Context(), "a", channels.Message{Header: "x", Body: json.RawMessage(body)})
		require.ErrorIs(t, err, channels.ErrBadMessage)
		require.ErrorContains(t, err, "the body is not valid JSON "+where)
		require.ErrorContains(t, err, "channels.Of")
	}
}

// Pages show this text to people, who have no keys.
func TestStoreUnavailableIsForPeople(t *testing.T) {
	require.Equal(t, "the store does not answer; try again in a moment", channels.ErrStoreUnavailable.Message)
}
