package main

import (
	"context"
	"net/http"

	"github.com/centrifugal/centrifuge"
)

// onCentrifuge uses centrifugal/centrifuge, whose client protocol the hub speaks too,
// with its memory broker and its own defaults.
type onCentrifuge struct {
	http.Handler
	node *centrifuge.Node
}

func newCentrifuge(config centrifuge.WebsocketConfig) (app, error) {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil
	})
	node.OnConnect(func(c *centrifuge.Client) {
		c.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			answer(centrifuge.SubscribeReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		return nil, err
	}
	return onCentrifuge{centrifuge.NewWebsocketHandler(node, config), node}, nil
}

func (a onCentrifuge) publish(channel string, body []byte) error {
	_, err := a.node.Publish(channel, body)
	return err
}

func (a onCentrifuge) subscribers() int { return a.node.Hub().NumClients() }
