package channels_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// calls is an OnCall with some methods.
func calls(sent chan<- channels.Call) func(context.Context, channels.Call) (json.RawMessage, error) {
	return func(ctx context.Context, c channels.Call) (json.RawMessage, error) {
		id, _ := channels.IdentityFrom(ctx)
		switch {
		case c.OneWay:
			sent <- c
			return json.RawMessage(`1`), channels.ErrForbidden // nobody gets it
		case c.Method == "who":
			return json.Marshal(c.Client.Identity.ID + " " + id.ID)
		case c.Method == "echo":
			return c.Data, nil
		case c.Method == "nothing":
			return nil, nil
		case c.Method == "no JSON":
			return json.RawMessage(`{`), nil
		case c.Method == "no UTF-8":
			return json.RawMessage("\"\xff\""), nil
		case c.Method == "forbidden":
			return nil, channels.ErrForbidden
		case c.Method == "panic":
			panic("test")
		}
		return nil, channels.ErrNoMethod
	}
}

func TestCall(t *testing.T) {
	sent := make(chan channels.Call, 1)
	hub := newHub(t, channels.Options{OnCall: calls(sent)})
	c := hello(t, hub, "ann")
	for request, result := range map[string]string{
		`{"method":"who"}`:                    `"ann ann"`,
		`{"method":"echo","data":{"x":"\n"}}`: `{"x":"\n"}`,
		`{"method":"echo","data":null}`:       `null`,
		`{"method":"nothing"}`:                `null`,
	} {
		c.send(`{"id":2,"rpc":` + request + `}`)
		require.Equal(t, `{"id":2,"rpc":{"data":`+result+`}}`, c.next())
	}
	c.refused(104, `"rpc":{"method":"other"}`)
	c.refused(104, `"rpc":{}`)
	c.refused(103, `"rpc":{"method":"forbidden"}`)
	c.refused(100, `"rpc":{"method":"no JSON"}`)
	c.refused(100, `"rpc":{"method":"no UTF-8"}`)
	c.send(`{"send":{"data":[1]}}`)
	call := <-sent
	require.Equal(t, "[1]", string(call.Data))
	require.Equal(t, "ann", call.Client.Identity.ID)
	c.subscribe(8, "a") // there was no reply before
}

func TestCallOfNoMethods(t *testing.T) {
	hub := newHub(t, channels.Options{})
	c := hello(t, hub, "ann")
	c.refused(108, `"rpc":{"method":"other"}`)
	c.refused(108, `"ping":{}`)
	c.refused(108, `"later":{}`)
	c.send(`{"send":{"data":[1]}}`)
	c.wantEnd(3508, "not_available")
}

func TestCallThatPanics(t *testing.T) {
	s := serve(t, channels.Options{OnCall: calls(nil)})
	c := s.connected()
	c.command(`{"id":2,"rpc":{"method":"panic"}}`)
	c.wantClosed(3004, "internal server error")
	require.Contains(t, s.log.String(), "panic in OnCall")
	c = s.connected() // a panic ends one connection
	c.command(`{"id":2,"rpc":{"method":"nothing"}}`)
	c.want(`{"id":2,"rpc":{"data":null}}`)
}
