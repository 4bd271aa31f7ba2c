package connect

import "fmt"

// A driver is one client of an SDK. Its events go to the client that owns it, in the
// order in which the SDK reports them. What is published and answered is text in
// JSON. The methods that return an error wait for the server's answer; the error
// is then a refusal.
type driver interface {
	connect()
	disconnect()
	subscribe(channel string, o interest)
	unsubscribe(channel string)
	publish(channel, data string) error
	rpc(method, data string) (string, error)
	send(data string) error
	presence(channel string) (map[string]person, error) // by the id of the connection
	presenceStats(channel string) (crowd, error)
	history(channel string, q page) (past, error)
	close() // frees what the client holds; it needs no server
}

// An introduction is what a client is opened with.
type introduction struct {
	Endpoints []endpoint `json:"endpoints"` // tried in this order
	Emulation string     `json:"emulation"` // where the fallbacks send their requests
	Token     string     `json:"token"`
	Tokens    []string   `json:"tokens"`    // what the app gives the SDK for each time that it asks
	PingDelay int        `json:"pingDelay"` // how late a ping may be, in milliseconds; 0 for the SDK's default
	Timeout   int        `json:"timeout"`   // how long connecting and answers may take, in milliseconds
}

// An endpoint is a door of the server, in the words of the JavaScript SDK.
type endpoint struct {
	Transport string `json:"transport"`
	URL       string `json:"endpoint"`
}

// An interest is what a client asks for with a subscription.
type interest struct {
	Token     string   `json:"token"`
	Tokens    []string `json:"tokens"` // as those of an introduction
	Data      string   `json:"data"`
	JoinLeave bool     `json:"joinLeave"`
}

// A page says which part of a history is asked for.
type page struct {
	Limit   int       `json:"limit"`
	Since   *position `json:"since"`
	Reverse bool      `json:"reverse"`
}

type position struct {
	Offset uint64 `json:"offset"`
	Epoch  string `json:"epoch"`
}

// past is a part of a history, and where the channel is now.
type past struct {
	Publications []event
	Offset       uint64
	Epoch        string
}

type crowd struct{ NumClients, NumUsers int }

type person struct{ User, Client, ConnInfo string }

// An event is what an SDK reports: what has become of the connection (connecting,
// connected, disconnected, error), of a subscription (subscribing, subscribed,
// unsubscribed), what has come (publication, join, leave, message), and that it asks
// the app for a token (token).
type event struct {
	Type    string
	Channel string `json:",omitempty"` // empty for what is about the connection
	Server  bool   `json:",omitempty"` // about a subscription that the server has made

	Code      int    `json:",omitempty"` // connecting, disconnected, error, subscribing, unsubscribed
	Reason    string `json:",omitempty"` // the same
	Client    string `json:",omitempty"` // connected
	Transport string `json:",omitempty"` // connected

	WasRecovering bool `json:",omitempty"` // subscribed
	Recovered     bool `json:",omitempty"` // subscribed
	Recoverable   bool `json:",omitempty"` // subscribed

	Data   string            `json:",omitempty"`
	Offset uint64            `json:",omitempty"` // publication, subscribed
	Epoch  string            `json:",omitempty"` // subscribed
	Tags   map[string]string `json:",omitempty"`
	Info   *person           `json:",omitempty"` // who has published, joined or left
}

// A refusal is an error that the server has answered with.
type refusal struct {
	Code    int
	Message string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d: %s", r.Code, r.Message) }
