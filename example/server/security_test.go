package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/middleware"
)

const (
	testSecret = "0123456789abcdef0123456789abcdef"
	testKey    = "key-0123456789-0123456789"
	testKeys   = `[{"name":"billing","key":"` + testKey + `","publish":["orders.*"],"subscribe":["*"],"list":true}]`
)

// file writes a file for a test.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "a file")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

func publicKey(t *testing.T) (ed25519.PublicKey, string) {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(pub)
	require.NoError(t, err)
	return pub, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestSecurityConfig(t *testing.T) {
	pub, text := publicKey(t)
	want := security{
		jwt:         middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: []byte(testSecret)}, {Key: pub}}, Issuer: "us", Audience: "chat", Cookie: "session"},
		apiKeys:     []middleware.ServerKey{{Name: "billing", Key: testKey, Grants: middleware.Grants{Publish: []string{"orders.*"}, Subscribe: []string{"*"}, List: true}}},
		anonymous:   middleware.Grants{Subscribe: []string{"news", "a.*"}},
		rates:       middleware.RateLimitOptions{Address: middleware.Rate{PerSecond: 10, Burst: 50}, User: middleware.Rate{PerSecond: 0.5}, Connection: middleware.Rate{PerSecond: 5, Burst: 5}},
		proxies:     []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/48")},
		logRequests: true,
	}
	secret, key, keys := file(t, testSecret+"\n"), file(t, text), file(t, testKeys)
	got := parsed(t, nil, "-jwt-secret-file", secret, "-jwt-public-key", key, "-jwt-issuer", "us", "-jwt-audience", "chat", "-jwt-cookie", "session", "-api-keys-file", keys,
		"-anonymous", "news", "-anonymous", "a.*", "-rate-address", "10,50", "-rate-user", "0.5", "-rate-connection", "5,5", "-trusted-proxy", "10.0.0.0/8", "-trusted-proxy", "2001:db8::/48", "-log-requests")
	require.Equal(t, want, got.security)

	want.jwt.Keys = []middleware.JWTKey{{Key: pub}, {Key: []byte(testSecret)}}
	got = parsed(t, map[string]string{"CHANNELS_JWT_SECRET": testSecret, "CHANNELS_JWT_PUBLIC_KEY": key, "CHANNELS_JWT_ISSUER": "us", "CHANNELS_JWT_AUDIENCE": "chat",
		"CHANNELS_JWT_COOKIE": "session", "CHANNELS_API_KEYS": testKeys, "CHANNELS_ANONYMOUS": "news a.*", "CHANNELS_RATE_ADDRESS": "10,50", "CHANNELS_RATE_USER": "0.5",
		"CHANNELS_RATE_CONNECTION": "5,5", "CHANNELS_TRUSTED_PROXY": "10.0.0.0/8 2001:db8::/48", "CHANNELS_LOG_REQUESTS": "true"})
	require.Equal(t, want, got.security)
}

func TestSecurityConfigErrors(t *testing.T) {
	for name, c := range map[string]struct{ flag, value, allowed string }{
		"no such file":          {"-jwt-secret-file", "/none", "no such file"},
		"a short secret":        {"-jwt-secret-file", file(t, "short"), "has 5 bytes; it has to have 32 or more"},
		"a file far too long":   {"-jwt-secret-file", file(t, strings.Repeat("x", maxFile+1)), "more than 1048576 bytes"},
		"no PEM":                {"-jwt-public-key", file(t, testSecret), "-----BEGIN PUBLIC KEY-----"},
		"a broken key":          {"-jwt-public-key", file(t, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), "cannot be read"},
		"a private key":         {"-jwt-public-key", file(t, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "PUBLIC KEY"},
		"keys that are no JSON": {"-api-keys-file", file(t, testKey), "JSON like"},
		"a field unknown":       {"-api-keys-file", file(t, `[{"nam":"x"}]`), "with no other fields"},
		"something behind":      {"-api-keys-file", file(t, `[] []`), "up to byte 4"},
		"a rate of words":       {"-rate-user", "fast", "0.001 to 1000000"},
		"a rate of nothing":     {"-rate-user", "0", "0.001 to 1000000"},
		"a rate, not a number":  {"-rate-user", "NaN", "0.001 to 1000000"},
		"a burst of nothing":    {"-rate-address", "1,0", "1 to 1000000 at once"},
		"a burst of words":      {"-rate-connection", "1,x", "1 to 1000000 at once"},
		"a proxy, no network":   {"-trusted-proxy", "10.0.0.1", "10.0.0.0/8"},
		"a bad pattern":         {"-anonymous", "a?", `subscribe has the pattern "a?"`},
	} {
		t.Run(name, func(t *testing.T) {
			refuses(t, c.flag, c.value, c.allowed)
		})
	}
	wantRefused(t, map[string]string{"CHANNELS_LOG_REQUESTS": "yes"}, nil, "true or false")
}

// Secrets are not accepted on the command line, and errors do not repeat them.
func TestSecretsAreNotTakenFromTheCommandLine(t *testing.T) {
	for _, args := range [][]string{
		{"-jwt-secret", testSecret}, {"--jwt-secret=" + testSecret}, {"-addr", ":1", "-jwt-secret=" + testSecret}, {"-api-keys", testKeys}, {"--api-keys", testKeys},
	} {
		wantRefused(t, nil, args, "in the environment, or give a file with")
	}
	for name, value := range map[string]string{"CHANNELS_JWT_SECRET": "too-short", "CHANNELS_API_KEYS": `[{"name":"too-short"`} {
		wantRefused(t, map[string]string{name: value}, nil, name)
	}
}

// Errors do not repeat a secret that was given in place of a file name, or one
// in the wrong format.
func TestErrorsDoNotRepeatSecrets(t *testing.T) {
	for _, flag := range []string{"-jwt-secret-file", "-jwt-public-key", "-api-keys-file"} {
		for _, secret := range []string{testSecret, testKeys, "/" + testSecret + "\x00"} {
			wantRefused(t, nil, []string{flag, secret})
			wantRefused(t, nil, []string{flag + "=" + secret})
			wantRefused(t, map[string]string{variable(flag[1:]): secret}, nil)
		}
	}
	wantRefused(t, nil, []string{testSecret})
	wantRefused(t, nil, []string{"-addr", ":1", testKey, "x"})
	wantRefused(t, map[string]string{"CHANNELS_JWT_SECRET": testSecret[:31]}, nil)
	for _, keys := range []string{testKey, `"` + testKey + `"`, `{"` + testKey + `":1}`, `[{"` + testKey + `":1}]`, `[{"name":"` + testKey, `[{"name":{"` + testKey + `":1}}]`, testKeys + testKeys} {
		wantRefused(t, map[string]string{"CHANNELS_API_KEYS": keys}, nil)
		wantRefused(t, nil, []string{"-api-keys-file", file(t, keys)})
	}
}

// In -anonymous only * is a wildcard, both when it is parsed and when it
// matches.
func TestAnonymousPatterns(t *testing.T) {
	cfg := parsed(t, map[string]string{"CHANNELS_JWT_SECRET": testSecret}, "-anonymous", "room[12] a.*")
	var o channels.Options
	around, err := cfg.security.around(&o, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for channel, want := range map[string]bool{"room[12]": true, "room1": false, "a.b": true} {
		around(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			id, _ := channels.IdentityFrom(r.Context())
			err := o.Authorize(r.Context(), channels.Request{Action: channels.ActionSubscribe, Channel: channel, Identity: id})
			require.Equal(t, want, err == nil, channel)
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
}

func TestSecurityThatMakesNoSense(t *testing.T) {
	for says, c := range map[string]struct {
		args []string
		env  map[string]string
	}{
		"-anonymous needs":                            {args: []string{"-anonymous", "news"}},
		"-jwt-issuer, -jwt-audience":                  {args: []string{"-jwt-issuer", "us"}},
		"cannot be trusted":                           {args: []string{"-trusted-proxy", "0.0.0.0/0"}},
		"has 0 bytes; it must be 16":                  {env: map[string]string{"CHANNELS_API_KEYS": `[{"name":"a","key":""}]`}},
		`Cookie is "a b"`:                             {args: []string{"-jwt-cookie", "a b"}, env: map[string]string{"CHANNELS_JWT_SECRET": testSecret}},
		"-jwt-cookie does not go with -origin 'null'": {args: []string{"-jwt-cookie", "session", "-origin", "null"}, env: map[string]string{"CHANNELS_JWT_SECRET": testSecret}},
		"and the other -jwt flags need":               {args: []string{"-jwt-leeway", "1s"}},
		"-anonymous needs -jwt-secret-file":           {args: []string{"-anonymous-list"}},
		"-jwt-cookie does not go with -origin '*'":    {args: []string{"-jwt-cookie", "session", "-origin", "https://a.com *"}, env: map[string]string{"CHANNELS_JWT_SECRET": testSecret}},
	} {
		err := run(t.Context(), parsed(t, c.env, c.args...), slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, says)
	}
}

// An app's server publishes to a user with its key, and only the user reads that.
func TestServersSendToUsers(t *testing.T) {
	keys := `[{"name":"mailer","key":"` + testKey + `","publish":["@user:*"],"subscribe":["*"]}]`
	addr, _ := start(t, map[string]string{"CHANNELS_JWT_SECRET": testSecret, "CHANNELS_API_KEYS": keys},
		"-publishers", "@user:*=identified", "-history", "@user:*=10,1h")
	bearer := func(user string) []string {
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix(),
			"channels": middleware.Grants{Subscribe: []string{"*"}, Publish: []string{"chat.*"}}}).SignedString([]byte(testSecret))
		require.NoError(t, err)
		return []string{"Authorization", "Bearer " + token}
	}
	do := func(method, path, body string, header ...string) int {
		code, _ := call(t, method, "http://"+addr+"/v1/channel/@user:ann/"+path, body, header...)
		return code
	}
	require.Equal(t, 200, do("POST", "publish", `{"header":"mail","body":1}`, "X-API-Key", testKey))
	require.Equal(t, 403, do("GET", "history", "", "X-API-Key", testKey))
	for user, want := range map[string]int{"ann": 200, "bob": 403} {
		require.Equal(t, want, do("GET", "history", "", bearer(user)...), user)
		require.Equal(t, 403, do("POST", "publish", `{"header":"mail","body":2}`, bearer(user)...), user)
	}
}

// Users with tokens, a server with a key, visitors with neither, limits, and
// the log of all these.
func TestServerWithSecurity(t *testing.T) {
	ctx := t.Context()
	addr, log := start(t, map[string]string{"CHANNELS_JWT_SECRET": testSecret, "CHANNELS_API_KEYS": testKeys},
		"-anonymous", "news", "-rate-connection", "0.001,2", "-rate-address", "1000", "-trusted-proxy", "127.0.0.0/8", "-log-requests",
		"-origin", "https://app.example.com", "-jwt-cookie", "session")
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix(),
		"channels": middleware.Grants{Subscribe: []string{"chat.*"}, Publish: []string{"chat.*"}}}).SignedString([]byte(testSecret))
	require.NoError(t, err)

	ws, _, err := hubtest.Dial(t, "http://"+addr+"/channel/chat.1/", websocket.DialOptions{Subprotocols: []string{"channels", "bearer." + token},
		HTTPHeader: http.Header{"X-Forwarded-For": {"203.0.113.9"}}})
	require.NoError(t, err)
	for i := range 3 {
		require.NoError(t, ws.Write(ctx, websocket.MessageText, []byte(`{"header":"x","body":1}`)))
		m := receive(t, ws)
		if i == 2 {
			require.Contains(t, string(m.Body), "rate_limited")
			break
		}
		require.Equal(t, "x", m.Header)
		receive(t, ws)
	}
	publish := func(channel string, header ...string) int {
		code, _ := call(t, "POST", "http://"+addr+"/v1/channel/"+channel+"/publish", `{"header":"x","body":1}`, header...)
		return code
	}
	require.Equal(t, 200, publish("orders.1", "X-API-Key", testKey))
	require.Equal(t, 403, publish("chat.1", "X-API-Key", testKey))
	require.Equal(t, 200, publish("chat.1", "Authorization", "Bearer "+token))
	require.Equal(t, 403, publish("news"))
	require.Equal(t, 401, publish("news", "Authorization", "Bearer a.b.c"))
	join(t, addr, "news").CloseNow()
	_, _, err = hubtest.Dial(t, "http://"+addr+"/channel/chat.1/", websocket.DialOptions{})
	require.Error(t, err)
	code, body := call(t, "GET", "http://"+addr+"/connection/websocket", "", "Authorization", "Bearer a.b.c")
	require.Equal(t, 401, code)
	require.Contains(t, body, "bad_token")
	get(t, addr, "/readyz")
	ws.CloseNow()
	require.Equal(t, "203.0.113.9:0", log.waitFor(t, "websocket", "user", "ann")["remote"])
	require.NotContains(t, log.String(), token)
	require.NotContains(t, log.String(), testKey)
	require.NotContains(t, log.String(), `"path":"/readyz"`)
}

// A secret that is given twice is refused, whichever would take precedence.
func TestSecretsComeOnce(t *testing.T) {
	for name, c := range map[string]struct{ flag, variable, value string }{
		"jwt":  {"-jwt-secret-file", "CHANNELS_JWT_SECRET", testSecret},
		"keys": {"-api-keys-file", "CHANNELS_API_KEYS", testKeys},
		"mesh": {"-mesh-key-file", "CHANNELS_MESH_KEY", meshKey},
		"zmq":  {"-zmq-token-file", "CHANNELS_ZMQ_TOKEN", testSecret},
		"page": {"-admin-token-file", "CHANNELS_ADMIN_TOKEN", testSecret},
	} {
		one := file(t, c.value)
		args := []string{"-mesh", "zmq", "-mesh-dns", "app:1", "-zmq-rep", "tcp://127.0.0.1:1"}
		if c.flag == "-jwt-secret-file" || c.flag == "-api-keys-file" {
			args = nil
		}
		_, err := parse(append(args, c.flag, one), lookup(map[string]string{c.variable: c.value}), io.Discard)
		require.EqualError(t, err, "there are two secrets: set either "+c.flag+" or "+c.variable, name)
		_, err = parse(args, lookup(map[string]string{variable(c.flag[1:]): one, c.variable: c.value}), io.Discard)
		require.EqualError(t, err, "there are two secrets: set either "+variable(c.flag[1:])+" or "+c.variable, name)
		parsed(t, nil, append(args, c.flag, one)...)
		parsed(t, map[string]string{c.variable: c.value}, args...)
	}
}

// Names in the file of API keys are exact, and none may appear twice.
func TestAPIKeysFileIsReadExactly(t *testing.T) {
	const key = `"key":"0123456789abcdef0123"`
	for text, ok := range map[string]bool{
		`[{"name":"b",` + key + `,"publish":["a"],"list":true}]`:     true,
		`[{"NAME":"b",` + key + `}]`:                                 false,
		`[{"name":"b",` + key + `,"Key":"ffffffffffffffffffff"}]`:    false,
		`[{"name":"b",` + key + `,"publish":["a"],"PUBLISH":["*"]}]`: false,
		`[{"name":"b",` + key + `,"publish":["a"],"publish":["*"]}]`: false,
		`[{"name":"b",` + key + `,"LIST":true}]`:                     false,
		`[{"name":"b",` + key + `,"server":true}]`:                   false,
	} {
		err := new(security).addAPIKeys([]byte(text))
		require.Equal(t, ok, err == nil, "%s: %v", text, err)
	}
}
