package middleware_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/middleware"
)

var secret = []byte("a secret of at least 32 bytes, for tests")

// signers returns a private key for each asymmetric algorithm.
var signers = sync.OnceValue(func() (s struct {
	rsa   *rsa.PrivateKey
	ecdsa *ecdsa.PrivateKey
	ed    ed25519.PrivateKey
}) {
	s.rsa = must(rsa.GenerateKey(rand.Reader, 2048))
	s.ecdsa = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	s.ed = must(ed, err)
	return s
})

type claims = jwt.MapClaims

// sign makes a token; without a kid if kid is "".
func sign(method jwt.SigningMethod, key any, kid string, c claims) string {
	t := jwt.NewWithClaims(method, c)
	if kid != "" {
		t.Header["kid"] = kid
	}
	return must(t.SignedString(key))
}

// signed signs a header and claims of any kind.
func signed(text string) string {
	return text + "." + base64.RawURLEncoding.EncodeToString(must(jwt.SigningMethodHS256.Sign(text, secret)))
}

// token makes an HS256 token that is valid for an hour and allows "chat.*".
func token(user string, more claims) string {
	c := claims{"sub": user, "exp": time.Now().Add(time.Hour).Unix(), "channels": claims{"subscribe": []string{"chat.*"}, "publish": []string{"chat.*"}}}
	for k, v := range more {
		if v == nil {
			delete(c, k)
		} else {
			c[k] = v
		}
	}
	return sign(jwt.SigningMethodHS256, secret, "", c)
}

func hs256(o middleware.JWTOptions) wrapper {
	o.Keys = []middleware.JWTKey{{Key: secret}}
	return must(middleware.JWT(o)).Handler
}

func TestJWTAlgorithms(t *testing.T) {
	s := signers()
	m := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{
		{Key: secret}, {Key: &s.rsa.PublicKey}, {Key: &s.ecdsa.PublicKey}, {Key: s.ed.Public().(ed25519.PublicKey)},
	}})).Handler
	c := claims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
	for _, one := range []struct {
		method jwt.SigningMethod
		key    any
		ok     bool
	}{
		{jwt.SigningMethodHS256, secret, true}, {jwt.SigningMethodRS256, s.rsa, true},
		{jwt.SigningMethodES256, s.ecdsa, true}, {jwt.SigningMethodEdDSA, s.ed, true},
		{jwt.SigningMethodHS384, secret, false}, {jwt.SigningMethodHS512, secret, false},
		{jwt.SigningMethodRS384, s.rsa, false}, {jwt.SigningMethodPS256, s.rsa, false},
		{jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, false},
	} {
		a := try(m(whoami), "GET", "/", "", "Authorization", "Bearer "+sign(one.method, one.key, "", c))
		if one.ok {
			require.Equal(t, 200, a.status, "%s %s", one.method.Alg(), a.body)
			require.Contains(t, a.body, `"id":"ann"`)
		} else {
			require.Equal(t, 401, a.status, one.method.Alg())
			require.Equal(t, "bad_token", a.code())
		}
	}
}

// The key determines the algorithm, not the token: a public key is never used
// as an HMAC secret.
func TestJWTAlgorithmConfusion(t *testing.T) {
	s := signers()
	c := claims{"sub": "eve", "exp": time.Now().Add(time.Hour).Unix()}
	der := must(x509.MarshalPKIXPublicKey(&s.rsa.PublicKey))
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	edKey := s.ed.Public().(ed25519.PublicKey)
	for name, keys := range map[string][]middleware.JWTKey{
		"only public keys": {{Key: &s.rsa.PublicKey}, {Key: edKey}},
		"a secret too":     {{Key: &s.rsa.PublicKey}, {Key: edKey}, {Key: secret}},
	} {
		m := must(middleware.JWT(middleware.JWTOptions{Keys: keys})).Handler
		for _, forged := range [][]byte{text, der, s.rsa.N.Bytes(), edKey} {
			a := try(m(whoami), "GET", "/", "", "Authorization", "Bearer "+sign(jwt.SigningMethodHS256, forged, "", c))
			require.Equal(t, 401, a.status, name)
		}
	}
}

func TestJWTRefuses(t *testing.T) {
	valid := token("ann", nil)
	parts := strings.Split(valid, ".")
	segment := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	resign := func(header string) string { return signed(segment(header) + "." + parts[1]) }
	raw := func(claims string) string { return signed(parts[0] + "." + segment(claims)) }
	other := []byte("another secret of at least 32 bytes, for tests")
	hour := time.Now().Add(time.Hour).Unix()
	for name, c := range map[string]struct {
		token, code, says string
	}{
		"nothing":               {"", "bad_token", "it is empty"},
		"no JWT":                {"abc", "bad_token", "not a JSON Web Token"},
		"dots":                  {"..", "bad_token", "not a JSON Web Token"},
		"too many dots":         {valid + ".x", "bad_token", "not a JSON Web Token"},
		"no JSON":               {segment("x") + "." + parts[1] + "." + parts[2], "bad_token", "not a JSON Web Token"},
		"too long":              {valid + strings.Repeat("A", 8192), "bad_token", "up to 8192"},
		"another's signature":   {sign(jwt.SigningMethodHS256, other, "", claims{"sub": "ann", "exp": hour}), "bad_token", "signature"},
		"no signature":          {parts[0] + "." + parts[1] + ".", "bad_token", "signature"},
		"other claims":          {parts[0] + "." + segment(`{"sub":"bob","exp":9999999999}`) + "." + parts[2], "bad_token", "signature"},
		"the claims null":       {parts[0] + "." + segment(`null`) + "." + parts[2], "bad_token", "signature"},
		"no algorithm":          {resign(`{"typ":"JWT"}`), "bad_token", "algorithm"},
		"an unknown algorithm":  {resign(`{"alg":"XX"}`), "bad_token", "algorithm"},
		"algorithm none":        {resign(`{"alg":"none"}`), "bad_token", ""},
		"a kid of no kind":      {resign(`{"alg":"HS256","kid":{"a":1}}`), "bad_token", "key"},
		"critical extensions":   {resign(`{"alg":"HS256","crit":["b64"],"b64":false}`), "bad_token", "key"},
		"expired":               {token("ann", claims{"exp": time.Now().Add(-time.Minute).Unix()}), "expired", "expired"},
		"no expiry":             {token("ann", claims{"exp": nil}), "bad_token", `it lacks "exp"`},
		"an expiry of no kind":  {token("ann", claims{"exp": "tomorrow"}), "bad_token", "wrong type"},
		"an expiry too far":     {token("ann", claims{"exp": 1e15}), "bad_token", "seconds since 1970"},
		"not yet":               {token("ann", claims{"nbf": hour}), "bad_token", "not valid yet"},
		"another issuer":        {token("ann", claims{"iss": "evil", "aud": "chat"}), "bad_token", "issuer"},
		"no issuer":             {token("ann", claims{"aud": "chat"}), "bad_token", `it lacks "iss"`},
		"another audience":      {token("ann", claims{"iss": "us", "aud": []string{"x", "y"}}), "bad_token", "audience"},
		"no audience":           {token("ann", claims{"iss": "us"}), "bad_token", `it lacks "aud"`},
		"no user":               {token("ann", claims{"sub": nil}), "bad_token", `lacks the claim "sub"`},
		"an empty user":         {token("", nil), "bad_token", `lacks the claim "sub"`},
		"the user null":         {raw(`{"sub":null,"exp":9999999999}`), "bad_token", `lacks the claim "sub"`},
		"a user like a key":     {token("apikey:billing", nil), "bad_token", "for API keys"},
		"a user like a gateway": {token("zmq:gateway", nil), "bad_token", "for gateways"},
		"an empty audience":     {token("ann", claims{"iss": "us", "aud": []string{""}}), "bad_token", `it lacks "aud"`},
		"another case":          {raw(`{"Sub":"ann","exp":9999999999}`), "bad_token", `lacks the claim "sub"`},
		"another s":             {raw(`{"ſub":"ann","exp":9999999999}`), "bad_token", `lacks the claim "sub"`},
		"exp, another case":     {raw(`{"sub":"ann","EXP":9999999999}`), "bad_token", "exp"},
		"expired, other case":   {raw(`{"sub":"ann","exp":1000,"Exp":9999999999}`), "expired", "expired"},
		"two users":             {raw(`{"sub":"ann","exp":9999999999,"sub":"bob"}`), "bad_token", `the name "sub" appears twice`},
		"two users, escaped":    {raw(`{"sub":"ann","exp":9999999999,"\u0073ub":"bob"}`), "bad_token", "appears twice"},
		"another name twice":    {raw(`{"sub":"ann","exp":9999999999,"x":1,"x":2}`), "bad_token", "appears twice"},
		"two rights to one":     {raw(`{"sub":"ann","exp":9999999999,"channels":{"publish":["a"],"publish":["*"]}}`), "bad_token", "appears twice"},
		"claims in an array":    {raw(`["sub","ann"]`), "bad_token", "not a JSON Web Token"},
		"claims null":           {raw(`null`), "bad_token", ""},
		"a user of no kind":     {token("ann", claims{"sub": 1}), "bad_token", `its "sub" is of the wrong type: a JSON number`},
		"channels of no kind":   {token("ann", claims{"channels": []string{"a"}}), "bad_token", `its "channels" is of the wrong type: a JSON array`},
		"a channel, no list":    {token("ann", claims{"channels": claims{"subscribe": "a"}}), "bad_token", `its "subscribe" is of the wrong type: a JSON string`},
		"a channel that is no name": {token("ann", claims{"iss": "us", "aud": "chat", "channels": claims{"publish": []string{"a/b"}}}),
			"bad_token", `publish has the pattern "a/b"`},
	} {
		t.Run(name, func(t *testing.T) {
			o := middleware.JWTOptions{}
			if strings.Contains(name, "issuer") || strings.Contains(name, "audience") || strings.Contains(name, "no name") {
				o.Issuer, o.Audience = "us", "chat"
			}
			for _, o.Optional = range []bool{false, true} { // a token that is present must be valid even if it is optional
				a := try(hs256(o)(whoami), "GET", "/", "", "Authorization", "Bearer "+c.token)
				require.Equal(t, 401, a.status, a.body)
				require.Equal(t, c.code, a.code())
				require.Contains(t, a.message(), c.says)
				require.Equal(t, `Bearer realm="channels", error="invalid_token"`, a.header.Get("WWW-Authenticate"))
			}
		})
	}
	a := try(hs256(middleware.JWTOptions{})(whoami), "GET", "/", "", "Authorization", "Basic eDp5")
	require.Equal(t, 401, a.status)
	require.Equal(t, "no_token", a.code())
	require.Equal(t, `Bearer realm="channels"`, a.header.Get("WWW-Authenticate"))
	a = try(hs256(middleware.JWTOptions{})(whoami), "GET", "/", "", "Authorization", "Bearer "+valid, "Authorization", "Bearer "+valid)
	require.Equal(t, "bad_token", a.code())
}

func TestJWTClaims(t *testing.T) {
	exp := time.Now().Add(time.Hour).Truncate(time.Second)
	full := claims{"exp": exp.Unix(), "iss": "us", "aud": []string{"x", "chat"}, "info": claims{"name": "Ann"},
		"channels": claims{"subscribe": []string{"news", "chat.*"}, "publish": []string{"chat.1"}, "list": true}}
	grants := middleware.Grants{Subscribe: []string{"news", "chat.*"}, Publish: []string{"chat.1"}, List: true}
	def := middleware.Grants{Subscribe: []string{"public"}}
	for name, c := range map[string]struct {
		o      middleware.JWTOptions
		claims claims
		want   channels.Identity
	}{
		"all":             {middleware.JWTOptions{Issuer: "us", Audience: "chat", Default: def}, full, channels.Identity{ID: "ann", Info: json.RawMessage(`{"name":"Ann"}`), Expires: exp, Value: grants}},
		"not looked at":   {middleware.JWTOptions{}, full, channels.Identity{ID: "ann", Info: json.RawMessage(`{"name":"Ann"}`), Expires: exp, Value: grants}},
		"no channels":     {middleware.JWTOptions{}, claims{"exp": exp.Unix(), "channels": nil}, channels.Identity{ID: "ann", Expires: exp, Value: middleware.Grants{}}},
		"the default":     {middleware.JWTOptions{Default: def}, claims{"exp": exp.Unix(), "channels": nil}, channels.Identity{ID: "ann", Expires: exp, Value: def}},
		"not the default": {middleware.JWTOptions{Default: def}, claims{"exp": exp.Unix(), "channels": claims{}}, channels.Identity{ID: "ann", Expires: exp, Value: middleware.Grants{}}},
		"for ever":        {middleware.JWTOptions{AllowNoExpiry: true}, claims{"exp": nil, "channels": claims{}}, channels.Identity{ID: "ann", Value: middleware.Grants{}}},
		"no user":         {middleware.JWTOptions{AllowNoSubject: true}, claims{"sub": nil, "exp": exp.Unix(), "channels": claims{}}, channels.Identity{Expires: exp, Value: middleware.Grants{}}},
		"names in another case are other claims": {middleware.JWTOptions{Default: def}, claims{"SUB": "eve", "ſub": "eve", "exp": exp.Unix(), "Exp": exp.Unix() + 1, "Info": 1,
			"Channels": claims{"publish": []string{"*"}}, "channelſ": claims{"publish": []string{"*"}}, "channels": claims{"publish": []string{"a"}, "Publish": []string{"*"}, "List": true}},
			channels.Identity{ID: "ann", Expires: exp, Value: middleware.Grants{Publish: []string{"a"}}}},
		"leeway": {middleware.JWTOptions{Leeway: 5 * time.Minute}, claims{"exp": exp.Add(-time.Hour - time.Minute).Unix(), "nbf": exp.Add(-time.Hour + time.Minute).Unix(), "channels": claims{}},
			channels.Identity{ID: "ann", Expires: exp.Add(-time.Hour + 4*time.Minute), Value: middleware.Grants{}}},
	} {
		t.Run(name, func(t *testing.T) {
			var got channels.Identity
			h := hs256(c.o)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got, _ = channels.IdentityFrom(r.Context()) }))
			a := try(h, "GET", "/", "", "Authorization", "bearer  "+token("ann", c.claims))
			require.Equal(t, 200, a.status, a.body)
			if c.o.Leeway == 0 && !c.want.Expires.IsZero() {
				c.want.Expires = c.want.Expires.Add(5 * time.Second) // the default
			}
			require.True(t, c.want.Expires.Equal(got.Expires), "%v", got.Expires)
			got.Expires = c.want.Expires
			require.Equal(t, c.want, got)
		})
	}
}

func TestJWTKeysByID(t *testing.T) {
	old, now, any := []byte("old "+string(secret)), []byte("now "+string(secret)), []byte("any "+string(secret))
	m := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{ID: "old", Key: old}, {ID: "now", Key: now}, {Key: any}}})).Handler
	for _, c := range []struct {
		key []byte
		kid string
		ok  bool
	}{
		{old, "old", true}, {now, "now", true}, {old, "", true}, {any, "", true},
		{any, "old", true}, {any, "unknown", true}, // a key without an ID serves every kid
		{old, "now", false}, {now, "unknown", false}, {secret, "old", false}, {secret, "", false},
	} {
		a := try(m(whoami), "GET", "/", "", "Authorization", "Bearer "+sign(jwt.SigningMethodHS256, c.key, c.kid, claims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}))
		require.Equal(t, c.ok, a.status == 200, "%s with kid %q: %s", c.key[:3], c.kid, a.body)
	}
}

// The first source that has a token counts, whether the token is valid or not.
func TestJWTSources(t *testing.T) {
	ann, bob, eve := token("ann", nil), token("bob", nil), token("eve", nil)
	m := hs256(middleware.JWTOptions{Cookie: "session"})
	for name, c := range map[string]struct {
		header []string
		user   string // or the error's code
	}{
		"header":              {[]string{"Authorization", "Bearer " + ann}, "ann"},
		"header, lower case":  {[]string{"Authorization", "bearer " + ann}, "ann"},
		"subprotocol":         {[]string{"Sec-WebSocket-Protocol", "channels, bearer." + bob}, "bob"},
		"subprotocol, lines":  {[]string{"Sec-WebSocket-Protocol", "bearer." + bob, "Sec-WebSocket-Protocol", "channels"}, "bob"},
		"cookie":              {[]string{"Cookie", "a=b; session=" + eve}, "eve"},
		"another cookie":      {[]string{"Cookie", "sessions=" + eve}, "no_token"},
		"all":                 {[]string{"Cookie", "session=" + eve, "Sec-WebSocket-Protocol", "bearer." + bob, "Authorization", "Bearer " + ann}, "ann"},
		"two":                 {[]string{"Cookie", "session=" + eve, "Sec-WebSocket-Protocol", "bearer." + bob}, "bob"},
		"another scheme":      {[]string{"Authorization", "Basic x", "Cookie", "session=" + eve}, "eve"},
		"the first is bad":    {[]string{"Authorization", "Bearer x", "Cookie", "session=" + eve}, "bad_token"},
		"the first is empty":  {[]string{"Authorization", "Bearer", "Cookie", "session=" + eve}, "bad_token"},
		"two subprotocols":    {[]string{"Sec-WebSocket-Protocol", "bearer." + bob + ",bearer." + bob}, "bad_token"},
		"an empty one":        {[]string{"Sec-WebSocket-Protocol", "bearer."}, "bad_token"},
		"two cookies":         {[]string{"Cookie", "session=" + eve + "; session=" + eve}, "eve"},
		"another subprotocol": {[]string{"Sec-WebSocket-Protocol", "channels, bearer"}, "no_token"},
	} {
		a := try(m(whoami), "GET", "/?token="+ann+"&access_token="+ann, "", c.header...)
		if a.status == 200 {
			require.Contains(t, a.body, `"id":"`+c.user+`"`, name)
		} else {
			require.Equal(t, c.user, a.code(), name)
		}
	}
	a := try(m(whoami), "GET", "/?token="+ann, "")
	require.Equal(t, "no_token", a.code(), "a token in the URL is never accepted")

	// The token is not passed on: a handler might choose it as the subprotocol.
	a = try(m(whoami), "GET", "/", "", "Sec-WebSocket-Protocol", "bearer."+bob+", channels ,other")
	require.Contains(t, a.body, `"protocol":["channels, other"]`)
	a = try(m(whoami), "GET", "/", "", "Sec-WebSocket-Protocol", "bearer."+bob)
	require.Contains(t, a.body, `"protocol":null`)
}

// JWT does not modify the request that an outer middleware holds.
func TestJWTLeavesTheRequestAlone(t *testing.T) {
	var after string
	h := stack(whoami, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			after = r.Header.Get("Sec-WebSocket-Protocol")
		})
	}, hs256(middleware.JWTOptions{}))
	protocols := "channels, bearer." + token("ann", nil)
	require.Equal(t, 200, try(h, "GET", "/", "", "Sec-WebSocket-Protocol", protocols).status)
	require.Equal(t, protocols, after)
}

// A browser's WebSocket sends its token as a subprotocol. The hub chooses the
// other one.
func TestJWTOverASubprotocol(t *testing.T) {
	s := serve(t, channels.Options{Authorize: middleware.Authorize}, hs256(middleware.JWTOptions{}))
	ann := token("ann", claims{"channels": claims{"subscribe": []string{"chat.*"}, "publish": []string{"chat.1"}}})
	for _, offered := range [][]string{{"channels", "bearer." + ann}, {"bearer." + ann, "channels"}} {
		w, resp, err := s.dial("/channel/chat.1/", websocket.DialOptions{Subprotocols: offered})
		require.NoError(t, err)
		require.Equal(t, "channels", w.c.Subprotocol())
		for k, vs := range resp.Header {
			require.NotContains(t, strings.Join(vs, " "), ann, k)
		}
		w.say(`{"header":"x","body":1}`)
	}
	w, _, err := s.dial("/channel/chat.2/", websocket.DialOptions{Subprotocols: []string{"channels", "bearer." + ann}})
	require.NoError(t, err)
	w.send(`{"header":"x","body":1}`)
	w.wantError("forbidden") // the identity still decides after the handshake
	_, resp, err := s.dial("/channel/news/", websocket.DialOptions{Subprotocols: []string{"channels", "bearer." + ann}})
	require.Error(t, err)
	require.Equal(t, 403, resp.StatusCode)
	_, resp, err = s.dial("/channel/chat.1/", websocket.DialOptions{Subprotocols: []string{"channels"}})
	require.Error(t, err)
	require.Equal(t, 401, resp.StatusCode)
}

// A connection ends when its token expires.
func TestJWTExpiryEndsConnections(t *testing.T) {
	s := serve(t, channels.Options{Authorize: middleware.Authorize}, hs256(middleware.JWTOptions{}))
	w := s.join("chat.1", "Authorization", "Bearer "+token("ann", claims{"exp": time.Now().Add(1500*time.Millisecond).Unix() + 1}))
	w.wantError("expired")
	_, err := w.read()
	require.Equal(t, websocket.StatusCode(3000), websocket.CloseStatus(err))
}

func TestJWTOpenPaths(t *testing.T) {
	s := serve(t, channels.Options{AllowedOrigins: []string{"https://app.example.com"}}, hs256(middleware.JWTOptions{}))
	for _, path := range []string{"/healthz", "/readyz", "/channels.js", "/channels.d.ts"} {
		require.Equal(t, 200, s.do("GET", path, "").status)
		require.Equal(t, 200, s.do("GET", path, "", "Authorization", "Bearer of-nobody").status, "a page with an old token needs it, too")
	}
	preflight := []string{"Origin", "https://app.example.com", "Access-Control-Request-Method", "POST"}
	require.Equal(t, 204, s.do("OPTIONS", "/v1/channel/a/publish", "", preflight...).status)
	// Similar paths need a token, and so do requests that only resemble
	// preflights.
	for _, path := range []string{"/channel/healthz", "/channel/readyz", "/v1/channel/healthz", "/healthz/", "//healthz", "/healthz/x", "/v1/channel", "/%2fhealthz", "/x/channels.js", "/channels.js/", "/channel%73.js"} {
		require.Equal(t, 401, s.do("GET", path, "").status, path)
	}
	require.Equal(t, 401, s.do("POST", "/v1/channel/a/publish", `{"header":"x","body":1}`, preflight...).status)
	require.Equal(t, 401, s.do("OPTIONS", "/v1/channel/a/publish", "").status)
}

// The requests of the client protocol pass without a token, and no others. The hub
// lets nobody in there who shows none in a command either.
func TestJWTOpensTheClientProtocol(t *testing.T) {
	passed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, known := channels.IdentityFrom(r.Context())
		require.False(t, known, r.URL)
	})
	h := hs256(middleware.JWTOptions{Cookie: "session"})(passed)
	doors := []string{"/connection/websocket", "/connection/sse", "/connection/http_stream", "/emulation"}
	for _, path := range doors {
		for _, method := range []string{"GET", "POST"} {
			for _, query := range []string{"", "?cf_connect=%7B%7D", "?token=x", "?"} {
				require.Equal(t, 200, try(h, method, path+query, "").status, path)
			}
		}
	}
	for _, path := range []string{
		"/", "/connection", "/connection/", "/connection/websocket/", "/connection/websocket/x", "/connection//websocket", "//connection/websocket",
		"/connection/websocket/../v1/publish", "/connection/websocket/..", "/connection/websocket/../../v1/channel", "/connection/websocket%2f..%2f..%2fv1%2fchannel",
		"/v1/../connection/websocket", "/v1/channel/../../connection/websocket", "/./emulation", "/emulation/", "/emulation/..", "/emulation/../v1/publish", "/emulation;/v1/publish",
		"/connection%2Fwebsocket", "/connection/web%73ocket", "/%63onnection/websocket", "/connection/websocket%00", "/connection/websocket%3F", "/connection%5Cwebsocket", "/connection/websocket%20",
		"/Connection/WebSocket", "/connection/uni_sse", "/rt/connection/websocket", "/rt/emulation", "/channel/emulation", "/channel/emulation/", "/v1/channel/emulation", "/channel/connection/websocket",
		"/v1/publish?/emulation", "/v1/publish?x=/connection/websocket", "/v1/publish%23/emulation", "/v1/publish;/emulation",
	} {
		a := try(h, "GET", path, "")
		require.Equal(t, 401, a.status, path)
		require.Equal(t, "no_token", a.code(), path)
	}
	r := httptest.NewRequest("GET", "http://x/emulation", nil)
	r.URL.Path, r.URL.RawPath = "/v1/publish", "/emulation" // not an encoding of the path, so it is not what the hub serves
	require.Equal(t, 401, ask(h, r).status)

	t.Run("a token that is there has to be valid", func(t *testing.T) {
		h := hs256(middleware.JWTOptions{Cookie: "session"})(whoami)
		for _, path := range doors {
			for _, header := range [][]string{{"Authorization", "Bearer x"}, {"Authorization", "Bearer"}, {"Cookie", "session=x"}, {"Sec-WebSocket-Protocol", "bearer.x"},
				{"Authorization", "Bearer x", "Authorization", "Bearer y"}} {
				require.Equal(t, "bad_token", try(h, "GET", path, "", header...).code(), path)
			}
			for _, header := range [][]string{{"Authorization", "Bearer " + token("ann", nil)}, {"Cookie", "session=" + token("ann", nil)}} {
				require.Contains(t, try(h, "GET", path, "", header...).body, `"id":"ann"`)
			}
			require.Equal(t, "expired", try(h, "GET", path, "", "Cookie", "session="+token("ann", claims{"exp": 1000})).code())
		}
	})
	t.Run("the hub", func(t *testing.T) {
		// Where it cannot verify a token in a command, it wants one in the request, also if
		// a middleware inside of JWT has given an identity.
		public := must(middleware.Anonymous(middleware.Grants{Subscribe: []string{"*"}}))
		s := serve(t, channels.Options{}, hs256(middleware.JWTOptions{}), public)
		tokens := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: secret}}}))
		able := serve(t, channels.Options{Authenticate: tokens.Authenticate}, tokens.Handler, public)
		for _, path := range doors {
			require.Equal(t, "no_token", s.do("GET", path, "").code(), path)
			require.NotEqual(t, 401, s.do("GET", path, "", "Authorization", "Bearer "+token("ann", nil)).status, path)
			require.NotEqual(t, 401, able.do("GET", path, "").status, path)
		}
	})
	t.Run("below a path", func(t *testing.T) {
		h := http.StripPrefix("/rt", hs256(middleware.JWTOptions{})(passed))
		require.Equal(t, 200, try(h, "GET", "/rt/connection/websocket", "").status)
		require.Equal(t, 401, try(h, "GET", "/rt/connection%2Fwebsocket", "").status)
		require.Equal(t, 401, try(h, "GET", "/rt/rt/emulation", "").status)
	})
}

// Tokens in commands are verified as those over HTTP are.
func TestJWTAuthenticate(t *testing.T) {
	tokens := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: secret}}, Leeway: 10 * time.Second}))
	authenticate := func(token string) (channels.Identity, error) {
		return tokens.Authenticate(t.Context(), token, json.RawMessage(`not looked at`))
	}
	exp := time.Now().Add(time.Hour).Truncate(time.Second)
	id, err := authenticate(token("ann", claims{"exp": exp.Unix(), "info": claims{"name": "Ann"}}))
	require.NoError(t, err)
	require.True(t, exp.Add(10*time.Second).Equal(id.Expires))
	require.Equal(t, "ann", id.ID)
	require.JSONEq(t, `{"name":"Ann"}`, string(id.Info))
	require.Equal(t, middleware.Grants{Subscribe: []string{"chat.*"}, Publish: []string{"chat.*"}}, id.Value)
	_, err = authenticate(token("ann", claims{"exp": time.Now().Add(-8 * time.Second).Unix()}))
	require.NoError(t, err, "clocks may differ")

	for name, c := range map[string]struct {
		token string
		want  error
	}{
		"none":            {"", middleware.ErrNoToken},
		"expired":         {token("ann", claims{"exp": time.Now().Add(-time.Minute).Unix()}), channels.ErrExpired},
		"not yet":         {token("ann", claims{"nbf": time.Now().Add(time.Minute).Unix()}), middleware.ErrBadToken},
		"no JWT":          {"x", middleware.ErrBadToken},
		"algorithm none":  {sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "", claims{"sub": "ann", "exp": exp.Unix()}), middleware.ErrBadToken},
		"another's":       {sign(jwt.SigningMethodHS256, []byte("another secret of at least 32 bytes"), "", claims{"sub": "ann", "exp": exp.Unix()}), middleware.ErrBadToken},
		"like an API key": {token("apikey:billing", nil), middleware.ErrBadToken},
		"huge":            {strings.Repeat("a", 1<<20), middleware.ErrBadToken},
		"huge, valid":     {token("ann", claims{"x": strings.Repeat("a", 8<<10)}), middleware.ErrBadToken},
		"a ticket":        {must(tokens.Ticket("ann", "chat.1", exp)), middleware.ErrBadToken},
		"channel null":    {token("ann", claims{"channel": json.RawMessage("null")}), middleware.ErrBadToken},
		"channel empty":   {token("ann", claims{"channel": ""}), middleware.ErrBadToken},
		"bad grants":      {token("ann", claims{"channels": claims{"publish": []string{"a/b"}}}), middleware.ErrBadToken},
	} {
		id, err := authenticate(c.token)
		require.ErrorIs(t, err, c.want, name)
		require.Zero(t, id, name)
	}
	optional := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: secret}}, Optional: true}))
	id, err = optional.Authenticate(t.Context(), "", nil)
	require.NoError(t, err)
	require.Zero(t, id)
	_, err = optional.Authenticate(t.Context(), "x", nil)
	require.ErrorIs(t, err, middleware.ErrBadToken)
}

func TestJWTOptional(t *testing.T) {
	s := serve(t, channels.Options{Authorize: middleware.Authorize}, hs256(middleware.JWTOptions{Optional: true}),
		must(middleware.Anonymous(middleware.Grants{Subscribe: []string{"news"}})))
	w := s.join("news")
	w.send(`{"header":"x","body":1}`)
	w.wantError("forbidden")
	require.Equal(t, 403, s.publish("news", "1").status)
	require.Equal(t, 403, s.do("GET", "/v1/channel", "").status)
	bearer := "Bearer " + token("ann", nil)
	require.Equal(t, 200, s.publish("chat.1", "1", "Authorization", bearer).status)
	require.Equal(t, 403, s.publish("news", "1", "Authorization", bearer).status)

	none := serve(t, channels.Options{Authorize: middleware.Authorize}, hs256(middleware.JWTOptions{Optional: true}))
	a := none.publish("news", "1")
	require.Equal(t, 403, a.status)
	require.Contains(t, a.message(), "without a token")
}

func TestJWTOptions(t *testing.T) {
	s := signers()
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(&s.rsa.PublicKey))})
	key := func(k any) middleware.JWTOptions {
		return middleware.JWTOptions{Keys: []middleware.JWTKey{{ID: "k1", Key: k}}}
	}
	with := func(f func(*middleware.JWTOptions)) middleware.JWTOptions {
		o := key(secret)
		f(&o)
		return o
	}
	for says, o := range map[string]middleware.JWTOptions{
		"Keys has 0 keys; it may have 1 to 100":         {},
		"Keys has 101 keys":                             {Keys: make([]middleware.JWTKey, 101)},
		`Keys[0].Key (ID "k1") is a secret of 31`:       key(make([]byte, 31)),
		"is PEM text":                                   key(text),
		"is an RSA key of less than 2048 bits":          key(&small.PublicKey),
		"less than 2048 bits; RS256":                    key((*rsa.PublicKey)(nil)),
		"curve is not P-256":                            key(&p384.PublicKey),
		"is not P-256; ES256 needs":                     key((*ecdsa.PublicKey)(nil)),
		"is an ECDSA key without a point":               key(&ecdsa.PublicKey{Curve: elliptic.P256()}),
		"is not a valid key: ":                          key(&ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}),
		"is an Ed25519 key of 5 bytes; it must have 32": key(ed25519.PublicKey("short")),
		"is a *rsa.PrivateKey; it must be":              key(s.rsa),
		"is a ed25519.PrivateKey; it must be":           key(s.ed),
		"is a <nil>; it must be":                        key(nil),
		"is a string; it must be":                       key(string(secret)),
		"Leeway is 5m0.000000001s; it must be 0":        with(func(o *middleware.JWTOptions) { o.Leeway = 5*time.Minute + 1 }),
		"Leeway is -1ns":                                with(func(o *middleware.JWTOptions) { o.Leeway = -1 }),
		`Cookie is "a b"`:                               with(func(o *middleware.JWTOptions) { o.Cookie = "a b" }),
		`Default: subscribe has the pattern "a b"`: with(func(o *middleware.JWTOptions) {
			o.Default.Subscribe = []string{"ok", "a b"}
		}),
	} {
		_, err := middleware.JWT(o)
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, err, "middleware: JWTOptions.")
		require.NotContains(t, err.Error(), string(secret))
	}
}

// Options are copied: later changes to the app's slices have no effect.
func TestJWTCopiesItsOptions(t *testing.T) {
	mine := []byte(string(secret))
	def := middleware.Grants{Subscribe: []string{"a"}}
	o := middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: mine}}, Default: def}
	m := must(middleware.JWT(o)).Handler
	bearer := "Bearer " + token("ann", claims{"channels": nil})
	clear(mine)
	o.Keys[0].Key, def.Subscribe[0] = nil, "b"
	a := try(m(whoami), "GET", "/", "", "Authorization", bearer)
	require.Equal(t, 200, a.status)
	require.Contains(t, a.body, `"subscribe":["a"]`)
}

// Keys of every kind are copied: overwriting them later has no effect.
func TestJWTCopiesItsKeys(t *testing.T) {
	s := signers()
	edKey := append(ed25519.PublicKey(nil), s.ed.Public().(ed25519.PublicKey)...)
	rsaKey := &rsa.PublicKey{N: new(big.Int).Set(s.rsa.N), E: s.rsa.E}
	ecKey := must(ecdsa.ParseUncompressedPublicKey(elliptic.P256(), must(s.ecdsa.PublicKey.Bytes())))
	m := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: edKey}, {Key: rsaKey}, {Key: ecKey}}})).Handler
	clear(edKey)
	rsaKey.N.SetInt64(1)
	rsaKey.E = 1
	*ecKey = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).PublicKey
	c := claims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
	for _, one := range []struct {
		method jwt.SigningMethod
		key    any
	}{{jwt.SigningMethodRS256, s.rsa}, {jwt.SigningMethodES256, s.ecdsa}, {jwt.SigningMethodEdDSA, s.ed}} {
		a := try(m(whoami), "GET", "/", "", "Authorization", "Bearer "+sign(one.method, one.key, "", c))
		require.Equal(t, 200, a.status, "%s %s", one.method.Alg(), a.body)
	}
}
