package docs_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

// connection is the chapter of protocol.md about the client protocol.
func connection(t *testing.T) string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, "docs/protocol.md"), "\n## Many channels over one connection\n")
	require.True(t, ok)
	chapter, _, ok := strings.Cut(rest, "\n## ")
	require.True(t, ok)
	return chapter
}

// talkative is the hub of the chapter.
func talkative(t *testing.T) *channels.Hub {
	t.Helper()
	hub, err := channels.New(channels.Options{
		ReplicaID: "R2",
		Channel: func(name string) channels.ChannelOptions {
			if strings.HasPrefix(name, "chat.") {
				return channels.ChannelOptions{HistorySize: 100, Presence: channels.PresenceEvents}
			}
			return channels.ChannelOptions{}
		},
		Authenticate: func(_ context.Context, token string, _ json.RawMessage) (channels.Identity, error) {
			ann := channels.Identity{ID: "ann", Info: json.RawMessage(`{"name":"Ann"}`), Expires: time.Now().Add(time.Hour)}
			switch token {
			case "TOKEN-OF-ANN":
				return ann, nil
			case "OLD-TOKEN-OF-ANN":
				return ann, channels.ErrExpired
			case "":
				return channels.Identity{}, nil
			}
			return ann, channels.ErrForbidden
		},
		OnCall: func(_ context.Context, c channels.Call) (json.RawMessage, error) {
			if c.Method != "sum" {
				return nil, channels.ErrNoMethod
			}
			var all []int
			if err := json.Unmarshal(c.Data, &all); err != nil {
				return nil, channels.ErrBadMessage
			}
			sum := 0
			for _, n := range all {
				sum += n
			}
			return json.Marshal(sum)
		},
	})
	require.NoError(t, err)
	return hub
}

// A talk goes through the lines of the chapter. What a hub makes up, such as the id
// of a connection, is another thing each time.
type talk struct {
	t     *testing.T
	url   string
	c     *websocket.Conn
	made  map[string]string // what the hub has made up, by what the chapter has instead
	heard []string          // replies that came and are not in the chapter yet
}

// madeUp finds what the hub makes up. Any time is as good as another.
var (
	madeUp  = regexp.MustCompile(`"(client|epoch)":"([\w-]{8,})"`)
	anyTime = regexp.MustCompile(`"time":\d{13}\b`)
)

func (k *talk) send(frame string) {
	k.t.Helper()
	for before, now := range k.made {
		frame = strings.ReplaceAll(frame, before, now)
	}
	if strings.Contains(frame, `"connect":`) && (k.c == nil || strings.Contains(frame, `"id":1,`)) {
		k.dial()
	}
	require.NoError(k.t, k.c.Write(k.t.Context(), websocket.MessageText, []byte(strings.ReplaceAll(frame, `\n`, "\n"))))
}

// dial begins a new connection; the one before is cut.
func (k *talk) dial() {
	k.t.Helper()
	k.close()
	c, _, err := websocket.Dial(k.t.Context(), k.url+"/connection/websocket", nil)
	require.NoError(k.t, err)
	k.c = c
}

func (k *talk) close() {
	if k.c != nil {
		k.c.CloseNow()
	}
}

// hears wants a reply to come.
func (k *talk) hears(want string) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), basetest.Patience)
	defer cancel()
	for {
		if i := slices.IndexFunc(k.heard, func(got string) bool { return k.same(want, got) }); i >= 0 {
			k.heard = slices.Delete(k.heard, i, i+1)
			return
		}
		_, b, err := k.c.Read(ctx)
		require.NoError(k.t, err, "there is no %s, but %s", want, k.heard)
		k.heard = append(k.heard, strings.Split(string(b), "\n")...)
	}
}

// same reports whether a reply is what the chapter has, and learns from it what the
// hub has made up.
func (k *talk) same(want, got string) bool {
	for before, now := range k.made {
		got = strings.ReplaceAll(got, now, before)
	}
	want, got = anyTime.ReplaceAllString(want, `"time"`), anyTime.ReplaceAllString(got, `"time"`)
	wants, gets := madeUp.FindAllStringSubmatch(want, -1), madeUp.FindAllStringSubmatch(got, -1)
	if madeUp.ReplaceAllString(want, "$1") != madeUp.ReplaceAllString(got, "$1") {
		return false
	}
	for i, w := range wants {
		if w[2] != gets[i][2] {
			if _, known := k.made[w[2]]; known {
				return false
			}
			k.made[w[2]] = gets[i][2]
		}
	}
	return true
}

// The conversations of the chapter happen as it says.
func TestConversationsOfTheClientProtocol(t *testing.T) {
	hub := talkative(t)
	server := httptest.NewServer(hub.Handler())
	t.Cleanup(func() {
		server.Close()
		require.NoError(t, hub.Shutdown(context.Background()))
	})
	k := &talk{t: t, url: server.URL, made: map[string]string{}}
	t.Cleanup(k.close)
	curl := regexp.MustCompile(`^curl -d '(.*)' http://127\.0\.0\.1:8080(/\S+)$`)
	lines := regexp.MustCompile(`(?m)^ {4,}([→←$]) (.*)$`).FindAllStringSubmatch(connection(t), -1)
	require.Greater(t, len(lines), 40)
	for _, m := range lines {
		switch m[1] {
		case "→":
			require.Empty(t, k.heard, "before %s", m[2])
			k.send(m[2])
		case "←":
			k.hears(m[2])
		case "$":
			of := curl.FindStringSubmatch(m[2])
			require.NotNil(t, of, m[2])
			resp := hubtest.Request(t, t.Context(), http.DefaultClient, "POST", server.URL+of[2], of[1])
			require.Equal(t, http.StatusOK, resp.StatusCode, hubtest.Body(t, resp))
		}
	}
	require.Empty(t, k.heard)
}

// The schema has the numbers that the code has.
func TestSchemaOfTheClientProtocol(t *testing.T) {
	schema := blocks(connection(t), "proto")
	require.Len(t, schema, 1)
	inDoc := map[string]string{}
	for _, m := range regexp.MustCompile(`(?s)message (\w+) \{(.*?)\}`).FindAllStringSubmatch(schema[0], -1) {
		for _, f := range regexp.MustCompile(`(\w+) = (\d+);`).FindAllStringSubmatch(m[2], -1) {
			inDoc[m[1]+"."+f[1]] = f[2]
		}
	}
	inCode := map[string]string{}
	files := walk(t, func(path string) bool {
		return strings.HasPrefix(path, "internal/clientproto/") && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go")
	})
	for _, m := range matches(t, files, `(?s)func \(m \*([A-Z]\w*)\) fields\(c \*coder\) \{(.*?)\}\n`) {
		for _, f := range regexp.MustCompile(`(\d+), "([a-z]\w*)"`).FindAllStringSubmatch(m[2], -1) {
			inCode[m[1]+"."+f[2]] = f[1]
		}
	}
	for _, unserved := range []string{"Command.ping", "SubscribeRequest.tf", "SubscribeRequest.type", "PublishRequest.type", "SubRefreshRequest.type", "Tags.header", "Tags.channel",
		"EmulationRequest.node", "EmulationRequest.session", "EmulationRequest.data"} {
		delete(inCode, unserved)
	}
	require.Equal(t, inCode, inDoc)
}

// The tables have the codes that the code has.
func TestCodesOfTheClientProtocol(t *testing.T) {
	file := []string{"connect_codes.go"}
	rows := func(head ...string) map[string]string {
		all := map[string]string{}
		for _, row := range table(t, "docs/protocol.md", head...) {
			all[row[0]] = strings.Trim(row[1], "`")
		}
		return all
	}
	reasons := func(kind string) map[string]string {
		all := map[string]string{}
		for _, m := range matches(t, file, `\b`+kind+`\{(\d+), "([^"]*)"\}`) {
			all[m[1]] = m[2]
		}
		return all
	}
	require.Equal(t, reasons("closing"), rows("session's end", "reason", "when", "the client"))
	require.Equal(t, reasons("unsubscribing"), rows("subscription's end", "reason", "when", "the client"))
	inTable := map[string]bool{}
	for code := range rows("code", "the hub's error") {
		inTable[code] = true
	}
	require.Equal(t, firsts(matches(t, file, `\bcode[A-Z]\w+ += (\d+)`)), inTable)
	for _, row := range table(t, "docs/protocol.md", "session's end", "reason", "when", "the client") {
		require.Equal(t, row[0] < "3500", strings.HasPrefix(row[3], "comes back"), row[0])
	}
}
