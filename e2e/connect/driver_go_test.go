package connect

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge-go"

	"github.com/channels-go/channels/internal/basetest"
)

// goClient drives the SDK for Go. The race detector may report the SDK itself, in
// Client.send: "make test" keeps it out of there (.ci/test.go).
type goClient struct {
	c    *centrifuge.Client
	tell func(event)
}

// newGoClient opens a client with the first of its endpoints: the SDK knows
// WebSockets only.
func newGoClient(k kind, o introduction, tell func(event)) driver {
	config := centrifuge.Config{
		Token:              o.Token,
		MaxServerPingDelay: time.Duration(o.PingDelay) * time.Millisecond,
		ReadTimeout:        time.Duration(o.Timeout) * time.Millisecond,
		WriteTimeout:       time.Duration(o.Timeout) * time.Millisecond,
		HandshakeTimeout:   time.Duration(o.Timeout) * time.Millisecond,
		MinReconnectDelay:  minDelay,
		MaxReconnectDelay:  maxDelay,
	}
	if next := tokens(o.Tokens, "", tell); next != nil {
		config.GetToken = func(centrifuge.ConnectionTokenEvent) (string, error) { return next() }
	}
	open := centrifuge.NewJsonClient
	if k.protobuf {
		open = centrifuge.NewProtobufClient
	}
	c := open(o.Endpoints[0].URL, config)
	c.OnConnecting(func(e centrifuge.ConnectingEvent) {
		tell(event{Type: "connecting", Code: int(e.Code), Reason: e.Reason})
	})
	c.OnConnected(func(e centrifuge.ConnectedEvent) {
		tell(event{Type: "connected", Client: e.ClientID, Transport: "websocket", Data: string(e.Data)})
	})
	c.OnDisconnected(func(e centrifuge.DisconnectedEvent) {
		tell(event{Type: "disconnected", Code: int(e.Code), Reason: e.Reason})
	})
	c.OnError(func(e centrifuge.ErrorEvent) { tell(failure("", e.Error)) })
	c.OnMessage(func(e centrifuge.MessageEvent) { tell(event{Type: "message", Data: string(e.Data)}) })
	c.OnSubscribed(func(e centrifuge.ServerSubscribedEvent) {
		tell(subscribed(e.Channel, true, e.WasRecovering, e.Recovered, e.Recoverable, e.StreamPosition))
	})
	c.OnUnsubscribed(func(e centrifuge.ServerUnsubscribedEvent) {
		tell(event{Type: "unsubscribed", Channel: e.Channel, Server: true})
	})
	c.OnPublication(func(e centrifuge.ServerPublicationEvent) {
		said := publication(e.Channel, e.Publication)
		said.Server = true
		tell(said)
	})
	return &goClient{c, tell}
}

// tokens is what gives an SDK the tokens of a list, one for each time that it asks.
// It is nil if there are none.
func tokens(list []string, channel string, tell func(event)) func() (string, error) {
	if len(list) == 0 {
		return nil
	}
	var mu sync.Mutex
	return func() (string, error) {
		mu.Lock()
		defer mu.Unlock()
		tell(event{Type: "token", Channel: channel})
		if len(list) == 0 {
			return "", centrifuge.ErrUnauthorized
		}
		next := list[0]
		list = list[1:]
		return next, nil
	}
}

// failure is the event for an error.
func failure(channel string, err error) event {
	e := event{Type: "error", Channel: channel, Reason: err.Error()}
	if refused := (*centrifuge.Error)(nil); errors.As(err, &refused) {
		e.Code = int(refused.Code)
	}
	return e
}

func subscribed(channel string, server, wasRecovering, recovered, recoverable bool, at *centrifuge.StreamPosition) event {
	e := event{Type: "subscribed", Channel: channel, Server: server,
		WasRecovering: wasRecovering, Recovered: recovered, Recoverable: recoverable}
	if at != nil {
		e.Offset, e.Epoch = at.Offset, at.Epoch
	}
	return e
}

func publication(channel string, p centrifuge.Publication) event {
	e := event{Type: "publication", Channel: channel, Data: string(p.Data), Offset: p.Offset, Tags: p.Tags}
	if p.Info != nil {
		e.Info = somebody(*p.Info)
	}
	return e
}

func somebody(i centrifuge.ClientInfo) *person { return &person{i.User, i.Client, string(i.ConnInfo)} }

// An SDK connects in the background and reports what becomes of it. So the errors
// of these methods say nothing new.

func (g *goClient) connect()    { _ = g.c.Connect() }
func (g *goClient) disconnect() { _ = g.c.Disconnect() }
func (g *goClient) close()      { g.c.Close() }

func (g *goClient) subscribe(channel string, o interest) {
	s, known := g.c.GetSubscription(channel)
	if !known {
		config := centrifuge.SubscriptionConfig{Token: o.Token, JoinLeave: o.JoinLeave,
			MinResubscribeDelay: minDelay, MaxResubscribeDelay: maxDelay}
		if o.Data != "" {
			config.Data = []byte(o.Data)
		}
		if next := tokens(o.Tokens, channel, g.tell); next != nil {
			config.GetToken = func(centrifuge.SubscriptionTokenEvent) (string, error) { return next() }
		}
		s, _ = g.c.NewSubscription(channel, config)
		g.listen(s)
	}
	_ = s.Subscribe()
}

func (g *goClient) listen(s *centrifuge.Subscription) {
	channel, tell := s.Channel, g.tell
	s.OnSubscribing(func(e centrifuge.SubscribingEvent) {
		tell(event{Type: "subscribing", Channel: channel, Code: int(e.Code), Reason: e.Reason})
	})
	s.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		tell(subscribed(channel, false, e.WasRecovering, e.Recovered, e.Recoverable, e.StreamPosition))
	})
	s.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) {
		tell(event{Type: "unsubscribed", Channel: channel, Code: int(e.Code), Reason: e.Reason})
	})
	s.OnError(func(e centrifuge.SubscriptionErrorEvent) { tell(failure(channel, e.Error)) })
	s.OnPublication(func(e centrifuge.PublicationEvent) { tell(publication(channel, e.Publication)) })
	s.OnJoin(func(e centrifuge.JoinEvent) {
		tell(event{Type: "join", Channel: channel, Info: somebody(e.ClientInfo)})
	})
	s.OnLeave(func(e centrifuge.LeaveEvent) {
		tell(event{Type: "leave", Channel: channel, Info: somebody(e.ClientInfo)})
	})
}

func (g *goClient) unsubscribe(channel string) {
	if s, known := g.c.GetSubscription(channel); known {
		_ = s.Unsubscribe()
	}
}

// ask makes a request, which must be answered in time.
func ask[T any](request func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), basetest.Patience)
	defer cancel()
	result, err := request(ctx)
	if refused := (*centrifuge.Error)(nil); errors.As(err, &refused) {
		err = &refusal{int(refused.Code), refused.Message}
	}
	return result, err
}

func (g *goClient) publish(channel, data string) error {
	_, err := ask(func(ctx context.Context) (centrifuge.PublishResult, error) {
		return g.c.Publish(ctx, channel, []byte(data))
	})
	return err
}

func (g *goClient) rpc(method, data string) (string, error) {
	result, err := ask(func(ctx context.Context) (centrifuge.RPCResult, error) {
		return g.c.RPC(ctx, method, []byte(data))
	})
	return string(result.Data), err
}

func (g *goClient) send(data string) error {
	_, err := ask(func(ctx context.Context) (struct{}, error) {
		return struct{}{}, g.c.Send(ctx, []byte(data))
	})
	return err
}

func (g *goClient) presence(channel string) (map[string]person, error) {
	result, err := ask(func(ctx context.Context) (centrifuge.PresenceResult, error) { return g.c.Presence(ctx, channel) })
	all := make(map[string]person, len(result.Clients))
	for id, info := range result.Clients {
		all[id] = *somebody(info)
	}
	return all, err
}

func (g *goClient) presenceStats(channel string) (crowd, error) {
	result, err := ask(func(ctx context.Context) (centrifuge.PresenceStatsResult, error) {
		return g.c.PresenceStats(ctx, channel)
	})
	return crowd{result.NumClients, result.NumUsers}, err
}

func (g *goClient) history(channel string, q page) (past, error) {
	options := []centrifuge.HistoryOption{centrifuge.WithHistoryLimit(int32(q.Limit)), centrifuge.WithHistoryReverse(q.Reverse)}
	if q.Since != nil {
		options = append(options, centrifuge.WithHistorySince(&centrifuge.StreamPosition{Offset: q.Since.Offset, Epoch: q.Since.Epoch}))
	}
	result, err := ask(func(ctx context.Context) (centrifuge.HistoryResult, error) {
		return g.c.History(ctx, channel, options...)
	})
	p := past{Offset: result.Offset, Epoch: result.Epoch}
	for _, one := range result.Publications {
		p.Publications = append(p.Publications, publication(channel, one))
	}
	return p, err
}
