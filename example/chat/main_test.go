package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/example/internal/webtest"
	"github.com/channels-go/channels/internal/basetest"
)

func serve(t *testing.T) *httptest.Server {
	t.Helper()
	hub, err := newHub()
	require.NoError(t, err)
	server := httptest.NewServer(routes(hub))
	t.Cleanup(func() {
		server.Close()
		assert.NoError(t, hub.Shutdown(context.Background()))
	})
	return server
}

// reply is what the page gets for a command.
type reply struct {
	Error   struct{ Message string }
	History struct {
		Publications []struct {
			Data any
			Tags map[string]string
			Info *struct{ User string }
		}
	}
}

// connect connects like a page, and returns how to send commands. What it gets
// for the connect is the reply, or the close code.
func connect(t *testing.T, s *httptest.Server, data string) (ask func(command string) reply, refused websocket.StatusCode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), basetest.Patience)
	t.Cleanup(cancel)
	c, _, err := websocket.Dial(ctx, s.URL+"/connection/websocket", nil)
	require.NoError(t, err)
	t.Cleanup(func() { c.CloseNow() })
	try := func(command string) (r reply, err error) {
		require.NoError(t, c.Write(ctx, websocket.MessageText, []byte(`{"id":1,`+command+`}`)))
		_, b, err := c.Read(ctx)
		if err == nil {
			require.NoError(t, json.Unmarshal(b, &r))
		}
		return r, err
	}
	_, err = try(`"connect":{"data":` + data + `}`)
	return func(command string) reply {
		t.Helper()
		r, err := try(command)
		require.NoError(t, err)
		return r
	}, websocket.CloseStatus(err)
}

func named(name string) string {
	b, _ := json.Marshal(map[string]string{"name": name})
	return string(b)
}

// publish is what the page sends to say something.
func publish(message string) string {
	return `"rpc":{"method":"publish","data":{"channel":"lobby",` + message + `}}`
}

func TestPageLoadsOnlyItsOwn(t *testing.T) {
	webtest.PageLoadsOnlyItsOwn(t, serve(t).Config.Handler, page)
}

func TestNamesAreBounded(t *testing.T) {
	s := serve(t)
	const badToken = 3500 // the page does not come back then
	for name, refused := range map[string]websocket.StatusCode{
		"Ann": -1, "  Ann  ": -1, "김민아": -1, strings.Repeat("é", 40): -1,
		"": badToken, "   ": badToken, strings.Repeat("é", 41): badToken, "a\nb": badToken, "a\x00": badToken,
	} {
		_, got := connect(t, s, named(name))
		assert.Equal(t, refused, got, "%q", name)
	}
	_, got := connect(t, s, `7`)
	assert.EqualValues(t, badToken, got)
}

func TestNobodySpeaksUnderAnothersName(t *testing.T) {
	s := serve(t)
	ask, _ := connect(t, s, named("Ann"))
	require.Empty(t, ask(publish(`"header":"say","body":{"text":" hi ","from":"Ben","key":"k"}`)).Error)
	for _, message := range []string{`{"header":"say","body":{"text":"I am Ben","from":"Ben"}}`, `{"header":"hi","body":{"n":1}}`} {
		webtest.Want(t, http.DefaultClient, http.StatusOK, "POST", s.URL+"/v1/channel/lobby/publish", message)
	}

	all := ask(`"history":{"channel":"lobby","limit":50}`).History.Publications
	require.Len(t, all, 3)
	assert.Equal(t, map[string]any{"text": "hi", "key": "k"}, all[0].Data)
	assert.Equal(t, "Ann", all[0].Info.User)
	assert.Nil(t, all[1].Info)
	assert.NotContains(t, all[1].Data, "from")
	assert.Nil(t, all[2].Info)
	assert.Equal(t, map[string]any{"n": 1.0}, all[2].Data)
	assert.Equal(t, "hi", all[2].Tags["header"])
}

func TestWhatIsRefused(t *testing.T) {
	ask, _ := connect(t, serve(t), named("Ann"))
	for message, reason := range map[string]string{
		`"header":"say","body":{"text":"  "}`:                                               "a message may have 1 to 2000 characters, and this one has none: write something",
		`"header":"say","body":{"text":"` + strings.Repeat("é", 2001) + `"}`:                "a message may have 1 to 2000 characters, and this one has 2001: make it shorter",
		`"header":"say","body":{"text":"hi","key":"` + strings.Repeat("k", 101) + `"}`:      `the body has to be like {"text":"hello"}`,
		`"header":"say","body":"hello"`:                                                     `the body has to be like {"text":"hello"}`,
		`"header":"deploy","body":{"text":"people are not programs; they only say things"}`: "people can only say something",
		`"header":"say","body":{"text":"` + strings.Repeat("é", 2000) + `"}`:                "",
	} {
		assert.Equal(t, reason, ask(publish(message)).Error.Message, message)
	}
}

func TestRunEnds(t *testing.T) {
	webtest.Run(t, func(ctx context.Context) error { return run(ctx, "127.0.0.1:0") })
	assert.Error(t, run(context.Background(), "no address"))
}
