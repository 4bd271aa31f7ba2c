package middleware_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/middleware"
)

// request makes a request and prints the status and the code of an error.
func request(h http.Handler, method, path string, header ...string) {
	r := httptest.NewRequest(method, path, strings.NewReader(`{"header":"x","body":1}`))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var answer struct{ Error struct{ Code string } }
	json.Unmarshal(w.Body.Bytes(), &answer)
	fmt.Println(strings.TrimSpace(fmt.Sprint(w.Code, " ", answer.Error.Code)))
}

// The order in which the pieces go around the hub. A request passes them from the
// last to the first, and the hub asks two of them about what is no HTTP request.
func Example_order() {
	limiter, err := middleware.RateLimit(middleware.RateLimitOptions{
		Address:    middleware.Rate{PerSecond: 50},
		User:       middleware.Rate{PerSecond: 0.01, Burst: 1},
		Connection: middleware.Rate{PerSecond: 20},
	})
	if err != nil {
		log.Fatal(err)
	}
	tokens, err := middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: []byte("32 bytes or more from the environment")}}})
	if err != nil {
		log.Fatal(err)
	}
	keys, err := middleware.APIKey(middleware.APIKeyOptions{
		Keys: []middleware.ServerKey{
			{Name: "billing", Key: "from-the-environment", Grants: middleware.Grants{Publish: []string{"orders"}}},
		},
		Limiter: limiter, // for wrong keys
	})
	if err != nil {
		log.Fatal(err)
	}
	cors, err := middleware.CORS(middleware.CORSOptions{Origins: []string{"https://app.example.com"}})
	if err != nil {
		log.Fatal(err)
	}
	proxies, err := middleware.TrustProxies(netip.MustParsePrefix("10.0.0.0/8"))
	if err != nil {
		log.Fatal(err)
	}
	access := middleware.Log(middleware.LogOptions{Logger: slog.New(slog.DiscardHandler)})

	hub, err := channels.New(channels.Options{
		AllowedOrigins: []string{"https://app.example.com"},
		Authenticate:   tokens.Authenticate, // tokens in connect commands
		Authorize:      tokens.Authorize,    // what the token's or the key's Grants allow, or a ticket
		OnReceive:      limiter.OnReceive,   // each message over a WebSocket
		OnConnect:      access.OnConnect,
		OnDisconnect:   access.OnDisconnect,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(context.Background())

	handler := hub.Handler()
	for _, m := range []func(http.Handler) http.Handler{
		limiter.ByUser,    // needs the user
		tokens.Handler,    // users
		limiter.ByAddress, // before a token is verified, which costs time
		keys,              // the app's own servers, which no limit holds up
		cors,              // so that a page's script can read refusals
		middleware.Recover(nil),
		access.Handler,
		proxies, // outermost: all others see the client's address
	} {
		handler = m(handler)
	}

	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": "ann", "exp": time.Now().Add(time.Hour).Unix(), "channels": middleware.Grants{Publish: []string{"orders"}},
	}).SignedString([]byte("32 bytes or more from the environment"))
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		request(handler, "POST", "/v1/channel/orders/publish", "Authorization", "Bearer "+token)
		request(handler, "POST", "/v1/channel/orders/publish", "X-API-Key", "from-the-environment")
	}
	request(handler, "POST", "/v1/channel/orders/publish")
	request(handler, "GET", "/readyz")
	// Output:
	// 200
	// 200
	// 429 rate_limited
	// 200
	// 401 no_token
	// 200
}

// A browser's script sends its token as a WebSocket subprotocol:
// new WebSocket(url, ["channels", "bearer." + token]).
func ExampleJWT() {
	ctx := context.Background()
	key := []byte("32 bytes or more from the environment")
	tokens, err := middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: key}}})
	if err != nil {
		log.Fatal(err)
	}
	hub, err := channels.New(channels.Options{Authenticate: tokens.Authenticate, Authorize: tokens.Authorize})
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(tokens.Handler(hub.Handler()))
	defer server.Close()
	defer hub.Shutdown(ctx)

	// The login of the app issues this:
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": "ann",
		"exp": time.Now().Add(time.Hour).Unix(),
		"channels": middleware.Grants{
			Subscribe: []string{"news", "chat.*"},
			Publish:   []string{"chat.*"},
		},
	}).SignedString(key)
	if err != nil {
		log.Fatal(err)
	}
	for _, channel := range []string{"chat.1", "news"} {
		ws, _, err := websocket.Dial(ctx, server.URL+"/channel/"+channel+"/", &websocket.DialOptions{
			Subprotocols: []string{"channels", "bearer." + token},
		})
		if err != nil {
			log.Fatal(err)
		}
		defer ws.CloseNow()
		ws.Write(ctx, websocket.MessageText, []byte(`{"header":"say","body":"hi"}`))
		_, text, err := ws.Read(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(ws.Subprotocol(), string(text))
	}
	// Output:
	// channels {"header":"say","body":"hi"}
	// channels {"header":"error","body":{"code":"forbidden","msg":"these credentials do not allow you to publish on \"news\""}}
}

// The app gives a page a ticket for a channel that the user's token does not name.
// The SDKs send it with the subscription.
func ExampleTokens_Ticket() {
	tokens, err := middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: []byte("32 bytes or more from the environment")}}})
	if err != nil {
		log.Fatal(err)
	}
	ticket, err := tokens.Ticket("ann", "room.42", time.Now().Add(10*time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	for _, user := range []string{"ann", "eve"} {
		fmt.Println(user, tokens.Authorize(context.Background(), channels.Request{
			Action:   channels.ActionSubscribe,
			Channel:  "room.42",
			Token:    ticket,
			Identity: channels.Identity{ID: user},
		}))
	}
	// Output:
	// ann <nil>
	// eve channels: the token is not valid: it is the ticket of another user
}

func ExampleAPIKey() {
	keys, err := middleware.APIKey(middleware.APIKeyOptions{Keys: []middleware.ServerKey{
		{Name: "billing", Key: "from-the-environment", Grants: middleware.Grants{Publish: []string{"orders.*"}}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	hub, err := channels.New(channels.Options{Authorize: middleware.Authorize})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(context.Background())
	h := keys(hub.Handler())
	request(h, "POST", "/v1/channel/orders.1/publish", "X-API-Key", "from-the-environment")
	request(h, "POST", "/v1/channel/orders.1/publish", "Authorization", "Bearer from-the-environment")
	request(h, "POST", "/v1/channel/chat.1/publish", "X-API-Key", "from-the-environment")
	request(h, "POST", "/v1/channel/orders.1/publish", "X-API-Key", "from-somewhere-else")
	request(h, "POST", "/v1/channel/orders.1/publish")
	// Output:
	// 200
	// 200
	// 403 forbidden
	// 401 bad_api_key
	// 403 forbidden
}

// Clients without a token may read the news.
func ExampleAnonymous() {
	tokens, err := middleware.JWT(middleware.JWTOptions{
		Keys:     []middleware.JWTKey{{Key: []byte("32 bytes or more from the environment")}},
		Optional: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	public, err := middleware.Anonymous(middleware.Grants{Subscribe: []string{"news.*"}})
	if err != nil {
		log.Fatal(err)
	}
	hub, err := channels.New(channels.Options{
		Authorize: middleware.Authorize,
		Channel: func(string) channels.ChannelOptions {
			return channels.ChannelOptions{HistorySize: 10}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(context.Background())
	h := tokens.Handler(public(hub.Handler()))
	request(h, "GET", "/v1/channel/news.today/history")
	request(h, "GET", "/v1/channel/chat.1/history")
	// Output:
	// 200
	// 403 forbidden
}

// The app's own Authorize can call the one of this package first.
func ExampleAuthorize() {
	authorize := func(ctx context.Context, r channels.Request) error {
		if err := middleware.Authorize(ctx, r); err != nil {
			return err
		}
		if r.Action == channels.ActionPublish && r.Identity.ID == "eve" {
			return channels.ErrForbidden
		}
		return nil
	}
	for _, user := range []string{"ann", "eve"} {
		fmt.Println(authorize(context.Background(), channels.Request{
			Action:   channels.ActionPublish,
			Channel:  "chat.1",
			Identity: channels.Identity{ID: user, Value: middleware.Grants{Publish: []string{"chat.*"}}},
		}))
	}
	// Output:
	// <nil>
	// channels: this is not allowed
}

func ExampleRateLimit() {
	limiter, err := middleware.RateLimit(middleware.RateLimitOptions{
		Address:    middleware.Rate{PerSecond: 0.01, Burst: 2},
		Connection: middleware.Rate{PerSecond: 5},
	})
	if err != nil {
		log.Fatal(err)
	}
	hub, err := channels.New(channels.Options{OnReceive: limiter.OnReceive})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(context.Background())
	h := limiter.ByAddress(hub.Handler())
	for range 3 {
		request(h, "POST", "/v1/channel/a/publish")
	}
	// Output:
	// 200
	// 200
	// 429 rate_limited
}

// A proxy on 10.0.0.1 has added the last address in X-Forwarded-For. The client
// has made up the one before it.
func ExampleTrustProxies() {
	proxies, err := middleware.TrustProxies(netip.MustParsePrefix("10.0.0.0/8"))
	if err != nil {
		log.Fatal(err)
	}
	h := proxies(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { fmt.Println(r.RemoteAddr) }))
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "10.0.0.1:51234"
	r.Header.Set("X-Forwarded-For", "127.0.0.1, 203.0.113.9")
	h.ServeHTTP(httptest.NewRecorder(), r)
	// Output:
	// 203.0.113.9:0
}

func ExampleCORS() {
	cors, err := middleware.CORS(middleware.CORSOptions{Origins: []string{"https://*.example.com"}})
	if err != nil {
		log.Fatal(err)
	}
	h := cors(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }))
	for _, origin := range []string{"https://app.example.com", "https://evil.example"} {
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		r.Header.Set("Origin", origin)
		h.ServeHTTP(w, r)
		fmt.Printf("%q\n", w.Header().Get("Access-Control-Allow-Origin"))
	}
	// Output:
	// "https://app.example.com"
	// ""
}

func ExampleLog() {
	// The example leaves out the attributes that differ from run to run.
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Key {
		case "time", "duration", "remote", "client":
			return slog.Attr{}
		}
		return a
	}}))
	access := middleware.Log(middleware.LogOptions{Logger: logger})
	done := make(chan struct{})
	hub, err := channels.New(channels.Options{
		OnConnect: access.OnConnect,
		OnDisconnect: func(c channels.Client, reason error) {
			access.OnDisconnect(c, reason)
			close(done)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(access.Handler(hub.Handler()))
	defer server.Close()
	defer hub.Shutdown(context.Background())

	ctx := context.Background()
	ws, _, err := websocket.Dial(ctx, server.URL+"/channel/a/", nil)
	if err != nil {
		log.Fatal(err)
	}
	ws.Write(ctx, websocket.MessageText, []byte(`{"header":"x","body":1}`))
	ws.Read(ctx) // the message
	ws.Read(ctx) // the acknowledgement
	ws.CloseNow()
	<-done
	// Output:
	// level=INFO msg=websocket method=GET path=/channel/a/ status=101 bytes_in=29 bytes_out=68 messages_in=1 messages_out=2
}

func ExampleRecover() {
	h := middleware.Recover(slog.New(slog.DiscardHandler))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic("a bug")
	}))
	request(h, "GET", "/")
	// Output:
	// 500 internal
}
