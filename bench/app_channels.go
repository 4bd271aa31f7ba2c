package main

import (
	"net/http"

	"github.com/channels-go/channels"
)

// onChannels is the app with the hub.
type onChannels struct {
	http.Handler
	hub *channels.Hub
}

func newChannels() (app, error) {
	hub, err := channels.New(channels.Options{})
	if err != nil {
		return nil, err
	}
	return onChannels{hub.Handler(), hub}, nil
}

func (a onChannels) publish(channel string, body []byte) error {
	_, err := a.hub.Publish(background, channel, channels.Message{Header: "m", Body: body})
	return err
}

func (a onChannels) subscribers() int { return int(a.hub.Stats().Connections) }
