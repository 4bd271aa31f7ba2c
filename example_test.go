package channels_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/channels-go/channels"
)

// An app mounts the hub's handler and publishes; a client subscribes with a
// WebSocket.
func ExampleHub() {
	ctx := context.Background()
	hub, err := channels.New(channels.Options{})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/rt/", http.StripPrefix("/rt", hub.Handler()))
	server := httptest.NewServer(mux)
	defer server.Close()
	defer hub.Shutdown(ctx) // before the server: it ends the connections

	ws, _, err := websocket.Dial(ctx, server.URL+"/rt/channel/orders/", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ws.CloseNow()

	res, err := hub.Publish(ctx, "orders", channels.Message{Header: "new", Body: json.RawMessage(`{"id":1}`)})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("receivers:", res.Receivers)

	// The client publishes too: it gets its own message, and then the answer.
	if err := ws.Write(ctx, websocket.MessageText, []byte(`{"header":"seen","body":1,"id":"a"}`)); err != nil {
		log.Fatal(err)
	}
	for range 3 {
		_, text, err := ws.Read(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(text))
	}
	// Output:
	// receivers: 1
	// {"header":"new","body":{"id":1}}
	// {"header":"seen","body":1}
	// {"header":"exchange","body":{"msg":"ok"},"id":"a"}
}

// An idempotency key makes it safe to publish again after an error or a
// crash: the channel gets the message once.
func ExampleHub_Publish() {
	ctx := context.Background()
	hub, err := channels.New(channels.Options{
		Channel: func(name string) channels.ChannelOptions {
			return channels.ChannelOptions{HistorySize: 100}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(ctx)

	paid := channels.Message{Header: "paid", Body: json.RawMessage(`{"order":17}`)}
	for range 2 {
		res, err := hub.PublishWith(ctx, "orders", paid, channels.PublishOptions{Key: "order-17-paid"})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("offset", res.Position.Offset, "duplicate", res.Duplicate)
	}

	_, err = hub.Publish(ctx, "no such name", paid)
	fmt.Println(errors.Is(err, channels.ErrBadChannel))
	// Output:
	// offset 1 duplicate false
	// offset 1 duplicate true
	// true
}

// A page gets HTML that the server has rendered, as the event that the header names.
func ExampleHTML() {
	hub, err := channels.New(channels.Options{
		Channel: func(name string) channels.ChannelOptions {
			return channels.ChannelOptions{HistorySize: 100, Publishers: channels.PublishersServer}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(hub.Handler())
	defer server.Close()
	defer hub.Shutdown(context.Background()) // before the server: it ends the streams

	var item strings.Builder
	list := template.Must(template.New("item").Parse("<li>{{.}}</li>"))
	if err := list.Execute(&item, "milk & eggs"); err != nil {
		log.Fatal(err)
	}
	if _, err := hub.Publish(context.Background(), "todo", channels.Message{Header: "item", Body: channels.HTML(item.String())}); err != nil {
		log.Fatal(err)
	}

	req, err := http.NewRequest("GET", server.URL+"/channel/todo/?format=event&last=10", nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := server.Client().Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "event:") || strings.HasPrefix(line, "data:") {
			fmt.Println(line)
		}
		if strings.HasPrefix(line, "data:") {
			break
		}
	}
	// Output:
	// event: item
	// data: <li>milk &amp; eggs</li>
}

// What feeds a channel runs while somebody is subscribed, on one of the replicas.
func ExampleOptions_onOccupied() {
	ctx := context.Background()
	var hub *channels.Hub
	feed := func(ctx context.Context, channel string) {
		for ctx.Err() == nil {
			price := channels.Message{Header: "price", Body: json.RawMessage(`{"coffee":4.2}`)}
			if _, err := hub.Publish(ctx, channel, price); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	var err error
	hub, err = channels.New(channels.Options{
		OnOccupied: func(ctx context.Context, channel string) { go feed(ctx, channel) }, // ctx ends when it is vacated
		OnVacated:  func(_ context.Context, channel string) { fmt.Println("nobody reads", channel) },
	})
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(hub.Handler())
	defer server.Close()

	ws, _, err := websocket.Dial(ctx, server.URL+"/channel/prices/", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ws.CloseNow()
	_, text, err := ws.Read(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
	hub.Shutdown(ctx)
	// Output:
	// {"header":"price","body":{"coffee":4.2}}
	// nobody reads prices
}

// A program that does not know the names of its channels subscribes to a pattern.
func ExampleHub_SubscribePattern() {
	hub, err := channels.New(channels.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(context.Background())
	ctx := context.Background()
	sub, err := hub.SubscribePattern(ctx, "orders.*")
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Close()
	for _, channel := range []string{"orders.17", "chat", "orders.18"} {
		if _, err := hub.Publish(ctx, channel, channels.Message{Header: "paid", Body: []byte("true")}); err != nil {
			log.Fatal(err)
		}
	}
	n := 0
	for m, err := range sub.Messages() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Channel, m.Header)
		if n++; n == 2 {
			break
		}
	}
	// Output:
	// orders.17 paid
	// orders.18 paid
}

// A subscriber in Go goes on where it was: it gets what it missed, then what
// comes. Where that is no longer kept, it gets a ResetError and goes on.
func ExampleHub_Subscribe() {
	ctx := context.Background()
	hub, err := channels.New(channels.Options{
		Channel: func(name string) channels.ChannelOptions {
			return channels.ChannelOptions{HistorySize: 2}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(ctx)

	publish := func(body string) channels.Position {
		res, err := hub.Publish(ctx, "log", channels.Message{Header: "line", Body: json.RawMessage(body)})
		if err != nil {
			log.Fatal(err)
		}
		return res.Position
	}
	// read prints what a subscriber that was at from gets, up to the message "c".
	read := func(from channels.Position) {
		sub, err := hub.Subscribe(ctx, "log", &from)
		if err != nil {
			log.Fatal(err)
		}
		defer sub.Close()
		for m, err := range sub.Messages() {
			var reset *channels.ResetError
			switch {
			case errors.As(err, &reset):
				fmt.Println("reset:", reset.Reason, reset.Position.Offset)
				return
			case err != nil:
				log.Fatal(err)
			}
			fmt.Println(m.Position.Offset, string(m.Body))
			if string(m.Body) == `"c"` {
				return
			}
		}
	}

	first := publish(`"a"`)
	publish(`"b"`)
	publish(`"c"`)
	read(first) // of the two messages that are kept, none is missing

	publish(`"d"`)
	read(first) // "b" is no longer kept
	// Output:
	// 2 "b"
	// 3 "c"
	// reset: trimmed 4
}

// OnConnect subscribes each user to what is theirs, and the app to more while they are
// connected.
func ExampleHub_SubscribeUser() {
	ctx := context.Background()
	var hub *channels.Hub
	hub, err := channels.New(channels.Options{
		OnConnect: func(ctx context.Context, c channels.Client) error {
			_, err := hub.SubscribeClient(ctx, c.ID, "inbox."+c.Identity.ID)
			return err
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	asAnn := func(w http.ResponseWriter, r *http.Request) {
		hub.Handler().ServeHTTP(w, r.WithContext(channels.WithIdentity(r.Context(), channels.Identity{ID: "ann"})))
	}
	server := httptest.NewServer(http.HandlerFunc(asAnn))
	defer server.Close()
	defer hub.Shutdown(ctx)

	ws, _, err := websocket.Dial(ctx, server.URL+"/connection/websocket", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ws.CloseNow()
	read := func() []byte {
		_, text, err := ws.Read(ctx)
		if err != nil {
			log.Fatal(err)
		}
		return text
	}
	if err := ws.Write(ctx, websocket.MessageText, []byte(`{"id":1,"connect":{}}`)); err != nil {
		log.Fatal(err)
	}
	var reply struct {
		Connect struct{ Subs json.RawMessage }
	}
	if err := json.Unmarshal(read(), &reply); err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(reply.Connect.Subs))

	if _, err := hub.SubscribeUser(ctx, "ann", "room.7"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(read()))
	// Output:
	// {"inbox.ann":{}}
	// {"push":{"channel":"room.7","subscribe":{}}}
}

// What is for one user goes to the user's own channel. Each of the user's connections
// may subscribe to it, and nobody else's.
func ExampleHub_Send() {
	ctx := context.Background()
	hub, err := channels.New(channels.Options{})
	if err != nil {
		log.Fatal(err)
	}
	asUser := func(w http.ResponseWriter, r *http.Request) { // an app asks its sessions
		id := channels.Identity{ID: r.Header.Get("X-User")}
		hub.Handler().ServeHTTP(w, r.WithContext(channels.WithIdentity(r.Context(), id)))
	}
	server := httptest.NewServer(http.HandlerFunc(asUser))
	defer server.Close()
	defer hub.Shutdown(ctx)

	dial := func(user string) (*websocket.Conn, *http.Response, error) {
		return websocket.Dial(ctx, server.URL+"/channel/"+channels.UserChannel("ann")+"/",
			&websocket.DialOptions{HTTPHeader: http.Header{"X-User": {user}}})
	}
	ws, _, err := dial("ann")
	if err != nil {
		log.Fatal(err)
	}
	defer ws.CloseNow()
	_, res, err := dial("bob")
	fmt.Println(err != nil, res.StatusCode)

	if _, err := hub.Send(ctx, "ann", channels.Message{Header: "mail", Body: json.RawMessage(`{"from":"bob"}`)}); err != nil {
		log.Fatal(err)
	}
	_, text, err := ws.Read(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
	// Output:
	// true 403
	// {"header":"mail","body":{"from":"bob"}}
}

// Online finds out who can be told something right now.
func ExampleHub_Online() {
	ctx := context.Background()
	hub, err := channels.New(channels.Options{})
	if err != nil {
		log.Fatal(err)
	}
	asAnn := func(w http.ResponseWriter, r *http.Request) {
		hub.Handler().ServeHTTP(w, r.WithContext(channels.WithIdentity(r.Context(), channels.Identity{ID: "ann"})))
	}
	server := httptest.NewServer(http.HandlerFunc(asAnn))
	defer server.Close()
	defer hub.Shutdown(ctx)

	req, err := http.NewRequest("GET", server.URL+"/channel/news/", nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()

	online, err := hub.Online(ctx, "ann", "bob")
	if err != nil { // a replica has not answered
		log.Print(err)
	}
	for _, user := range []string{"ann", "bob"} {
		fmt.Println(user, online[user])
	}
	// Output:
	// ann true
	// bob false
}

// PublishMany publishes to several channels, and says what became of each message.
func ExampleHub_PublishMany() {
	hub, err := channels.New(channels.Options{
		Channel: func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 100} },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(context.Background())

	due := channels.Message{Header: "due", Body: json.RawMessage(`{"invoice":17}`)}
	results, err := hub.PublishMany(context.Background(), []channels.Post{
		{Channel: channels.UserChannel("ann"), Message: due, Options: channels.PublishOptions{Key: "invoice-17"}},
		{Channel: "no such name", Message: due},
	})
	fmt.Println(errors.Is(err, channels.ErrBadChannel))
	for _, r := range results {
		fmt.Println(r.Position.Offset, r.Err == nil)
	}
	// Output:
	// true
	// 1 true
	// 0 false
}

// A typed view encodes and decodes the bodies.
func ExampleOf() {
	ctx := context.Background()
	hub, err := channels.New(channels.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(ctx)

	type Price struct {
		Symbol string  `json:"symbol"`
		Price  float64 `json:"price"`
	}
	prices := channels.Of[Price](hub, "prices")

	sub, err := prices.Subscribe(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Close()

	if _, err := prices.Publish(ctx, "tick", Price{"ACME", 12.5}); err != nil {
		log.Fatal(err)
	}
	for v, err := range sub.Values() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(v.Header, v.Body.Symbol, v.Body.Price)
		break
	}
	// Output:
	// tick ACME 12.5
}

// The app's own middleware tells the hub who somebody is, and Authorize
// decides what they may do: here everybody reads the news, but only "ann"
// writes them.
func ExampleWithIdentity() {
	hub, err := channels.New(channels.Options{
		Authorize: func(ctx context.Context, r channels.Request) error {
			switch {
			case r.Action == channels.ActionSubscribe && r.Channel == "news":
				return nil
			case r.Action == channels.ActionPublish && r.Channel == "news" && r.Identity.ID == "ann":
				return nil
			}
			return channels.ErrForbidden
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	sessions := map[string]string{"s3cr3t": "ann"} // an app has a store of its own
	identify := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c, err := r.Cookie("session"); err == nil {
				if user, ok := sessions[c.Value]; ok {
					r = r.WithContext(channels.WithIdentity(r.Context(), channels.Identity{ID: user}))
				}
			}
			next.ServeHTTP(w, r)
		})
	}
	server := httptest.NewServer(identify(hub.Handler()))
	defer server.Close()
	defer hub.Shutdown(context.Background())

	for _, cookie := range []string{"", "session=s3cr3t"} {
		req, err := http.NewRequest("POST", server.URL+"/v1/channel/news/publish", strings.NewReader(`{"header":"item","body":"It rains."}`))
		if err != nil {
			log.Fatal(err)
		}
		req.Header.Set("Cookie", cookie)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		var answer struct {
			Status string
			Error  struct{ Code, Message string }
		}
		err = json.NewDecoder(res.Body).Decode(&answer)
		res.Body.Close()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(res.StatusCode, answer.Status, answer.Error.Code)
	}
	// Output:
	// 403 fail forbidden
	// 200 ok
}

// Server-sent events need no WebSocket. Where the channel keeps history, each
// event has an id, which a browser sends back as Last-Event-ID when it
// connects again.
func Example_serverSentEvents() {
	ctx := context.Background()
	hub, err := channels.New(channels.Options{
		Channel: func(name string) channels.ChannelOptions {
			return channels.ChannelOptions{HistorySize: 100}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(hub.Handler())
	defer server.Close()
	defer hub.Shutdown(ctx)

	var seen string // the id of the first message: what the client has seen
	for _, body := range []string{`"one"`, `"two"`, `"three"`} {
		res, err := hub.Publish(ctx, "news", channels.Message{Header: "item", Body: json.RawMessage(body)})
		if err != nil {
			log.Fatal(err)
		}
		if seen == "" {
			seen = res.Position.String()
		}
	}

	req, err := http.NewRequest("GET", server.URL+"/channel/news/", nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", seen)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	fmt.Println(res.Header.Get("Content-Type"))
	lines := bufio.NewScanner(res.Body)
	for n := 0; n < 2 && lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue // the id, the time after which to connect again, an empty line
		}
		var m struct {
			Header string
			Body   string
			Offset int
		}
		if err := json.Unmarshal([]byte(data), &m); err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Offset, m.Header, m.Body)
		n++
	}
	// Output:
	// text/event-stream; charset=utf-8
	// 2 item two
	// 3 item three
}

// A graceful end: Drain, so that clients move to other replicas; Shutdown, which
// ends those that are left; and only then the http.Server, which would wait for
// their streams. What the app has given the hub, a mesh and a store, comes last.
func ExampleHub_Drain() {
	hub, err := channels.New(channels.Options{})
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: hub.Handler()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }() // ends with server.Shutdown

	ws, _, err := websocket.Dial(context.Background(), "http://"+l.Addr().String()+"/channel/orders/", nil)
	if err != nil {
		log.Fatal(err)
	}
	left := make(chan struct{})
	go func() { // a client: it hears that it is to come back, and is closed
		defer close(left)
		for {
			_, text, err := ws.Read(context.Background())
			if err != nil {
				fmt.Println("the client:", websocket.CloseStatus(err))
				return
			}
			header, _, _ := strings.Cut(string(text), ",")
			fmt.Println("the client:", header)
		}
	}()

	// An app does this on SIGTERM: see signal.NotifyContext.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := hub.Drain(ctx); err != nil {
		log.Print(err) // some clients have not gone in time: Shutdown ends them
	}
	<-left
	if err := hub.Shutdown(ctx); err != nil {
		log.Print(err)
	}
	if err := server.Shutdown(ctx); err != nil {
		log.Print(err)
	}
	fmt.Println("the server:", <-served)
	// Output:
	// the client: {"header":"reconnect"
	// the client: StatusGoingAway
	// the server: http: Server closed
}
