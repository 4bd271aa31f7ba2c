package channels_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// The context of a client that is being let in ends with its request and with the client,
// whether it was asked for before or after that.
func TestContextOfAClientThatIsLetIn(t *testing.T) {
	type key struct{}
	for name, ending := range map[string]func(request context.CancelFunc, end func()){
		"the request ends": func(request context.CancelFunc, _ func()) { request() },
		"the client ends":  func(_ context.CancelFunc, end func()) { end(); end() },
	} {
		t.Run(name, func(t *testing.T) {
			for _, asks := range []string{"before", "after"} {
				request, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "mine"))
				ctx, end := channels.ComingContext(request)
				require.Equal(t, "mine", ctx.Value(key{}))
				if asks == "before" {
					require.NoError(t, ctx.Err())
				}
				ending(cancel, end)
				<-ctx.Done()
				require.ErrorIs(t, ctx.Err(), context.Canceled)
				require.Equal(t, "mine", ctx.Value(key{}))
				cancel()
			}
		})
	}

	// What the app makes of it ends with it, and starts no goroutine that is left.
	ctx, end := channels.ComingContext(t.Context())
	made, cancel := context.WithCancel(ctx)
	defer cancel()
	end()
	<-made.Done()
	require.ErrorIs(t, context.Cause(made), context.Canceled)
}
