package channels

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/channels-go/channels/mesh"
)

// A Publisher is the connection that published a message. It is kept with the
// message, so the history and the other replicas have it too.
type Publisher struct {
	Client string          // the connection's id
	User   string          // Identity.ID
	Info   json.RawMessage // Identity.Info, on one line; nil if there is none
}

// maxPublisher bounds an encoded Publisher, since each message of a connection
// carries one. Identity.ID and Identity.Info have no bounds of their own.
const maxPublisher = 2 << 10

// A packet's fields besides its body fit into mesh.MaxFieldBytes, with 64 bytes for
// the id of a replica.
const _ = uint(mesh.MaxFieldBytes - (MaxNameBytes + MaxHeaderBytes + maxEpoch + maxSender + maxTime + maxPublisher + mesh.MaxTraceBytes + 64))

// publisherOf returns who publishes p, and the same encoded for the Store and the
// other replicas. Both are nil for the app's own code and for HTTP, which have no
// connection, and on a channel that hides its publishers.
func (h *Hub) publisherOf(opts *ChannelOptions, p *Publication) (*Publisher, []byte) {
	if p.Client == "" || opts.HidePublishers {
		return nil, nil
	}
	who := &Publisher{Client: p.Client, User: p.Identity.ID}
	var wrong error
	who.Info, wrong = infoOf(p.Identity.Info)
	b, err := who.encode()
	if err != nil && who.Info != nil { // who it was is worth more than the rest
		who.Info, wrong = nil, err
		b, err = who.encode()
	}
	if wrong = cmp.Or(err, wrong); wrong != nil {
		h.warn.badPublisher(p, wrong)
	}
	if err != nil {
		return nil, nil
	}
	return who, b
}

// infoOf returns an Identity.Info as messages carry it.
func infoOf(info json.RawMessage) (json.RawMessage, error) {
	switch {
	case len(info) == 0:
		return nil, nil
	case len(info) > maxPublisher: // not looked at for each message
		return nil, fmt.Errorf("Identity.Info has %d bytes; messages carry up to %d", len(info), maxPublisher)
	}
	info, err := checkBody(info, maxPublisher)
	if err != nil {
		return nil, fmt.Errorf("Identity.Info as a body: %w", err)
	}
	return info, nil
}

// encode returns p as JSON.
func (p *Publisher) encode() ([]byte, error) {
	if !utf8.ValidString(p.User) {
		return nil, errors.New("Identity.ID is not valid UTF-8")
	}
	b := make([]byte, 0, len(`{"client":"","user":"","info":}`)+len(p.Client)+len(p.User)+len(p.Info))
	b = appendString(append(b, `{"client":`...), p.Client)
	if p.User != "" {
		b = appendString(append(b, `,"user":`...), p.User)
	}
	if p.Info != nil {
		b = append(append(b, `,"info":`...), p.Info...)
	}
	if b = append(b, '}'); len(b) > maxPublisher {
		return nil, fmt.Errorf("with Identity.ID (%d bytes) and Identity.Info (%d bytes), the publisher has %d bytes; messages carry up to %d", len(p.User), len(p.Info), len(b), maxPublisher)
	}
	return b, nil
}

// decodePublisher reads what encode made at any replica, perhaps one of a later
// version, whose further members it ignores. What is no publisher gives nil: other
// programs may write to the Store and the mesh, and a message is worth more than
// its publisher. The result shares no memory with b.
func decodePublisher(b []byte) *Publisher {
	if len(b) == 0 || len(b) > maxPublisher || !utf8.Valid(b) || !gjson.ValidBytes(b) {
		return nil
	}
	p := &Publisher{}
	good := true
	gjson.ParseBytes(b).ForEach(func(name, value gjson.Result) bool {
		switch name.Str {
		case "client":
			p.Client, good = value.Str, value.Type == gjson.String
		case "user":
			p.User, good = value.Str, value.Type == gjson.String
		case "info":
			info, err := checkParsed(json.RawMessage(value.Raw))
			p.Info, good = info, err == nil
		}
		return good
	})
	if !good || p.Client == "" {
		return nil
	}
	return p
}

// publisher returns the publisher of an entry or packet, unless the channel hides it.
func (o *ChannelOptions) publisher(info []byte) *Publisher {
	if o.HidePublishers {
		return nil
	}
	return decodePublisher(info)
}

// size is what p takes, for the queues in which messages wait.
func (p *Publisher) size() int {
	const overhead = 64 // the struct, and rounding
	if p == nil {
		return 0
	}
	// decodePublisher keeps the whole text, of which Client and User are parts.
	return overhead + len(p.Client) + len(p.User) + 2*len(p.Info)
}
