package connect

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

// shared is what the replicas of a site have in common.
type shared struct {
	store store.Store
	join  func(name string) mesh.Mesh
}

// inMemory is for replicas of one process.
func inMemory(t *testing.T) shared {
	network := meshtest.NewNetwork(1)
	return shared{hubtest.NewMemory(t), func(name string) mesh.Mesh { return network.Join(name) }}
}

// replica is one server.
type replica struct {
	*hubtest.Server
	name string
}

func newReplica(s *site) *replica {
	s.t.Helper()
	name := fmt.Sprint("r", len(s.replicas))
	o := s.settings.options(name, s.shared, s.reports)
	o.AllowedOrigins = []string{home.URL}
	r := &replica{name: name}
	if inbox := s.settings.inbox; inbox != "" {
		o.OnConnect = func(ctx context.Context, c channels.Client) error {
			_, err := r.Hub.SubscribeClient(ctx, c.ID, inbox)
			return err
		}
	}
	r.Server = hubtest.New(s.t, o)
	if s.settings.small {
		r.SmallBuffers()
	}
	r.HTTP.Start()
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("replica %s has logged:\n%s", name, r.Log)
		}
	})
	return r
}

// options are those of a replica with a name.
func (o settings) options(name string, with shared, tell reports) channels.Options {
	hub := channels.Options{
		ReplicaID: name, Store: with.store, Mesh: with.join(name),
		PingPeriod:       cmp.Or(o.ping, 2*basetest.Patience),
		MaxSubscriptions: o.subscriptions,
		DrainTime:        -1, // at once
		Authenticate: func(_ context.Context, token string, _ json.RawMessage) (channels.Identity, error) {
			tell.asked <- token
			return authenticate(token)
		},
		Authorize:    func(_ context.Context, r channels.Request) error { return authorize(r) },
		OnCall:       func(_ context.Context, c channels.Call) (json.RawMessage, error) { return answerCall(c, tell) },
		OnDisconnect: func(c channels.Client, reason error) { tell.left <- leaving{c.Identity.ID, reason} },
		Channel: func(name string) (c channels.ChannelOptions) {
			if plain(name) {
				return c
			}
			c.HistorySize = o.history
			if o.presence {
				c.Presence = channels.PresenceEvents
			}
			return c
		},
	}
	if o.small {
		hub.MaxMessageBytes, hub.QueueBytes = 4<<10, 64<<10
	}
	return hub
}

// authenticate says whose a token is.
func authenticate(token string) (id channels.Identity, err error) {
	user, left, ok := readToken(token)
	switch {
	case !ok:
		return id, errors.New("the token is nobody's")
	case left < 0:
		return id, channels.ErrExpired
	case left > 0:
		id.Expires = time.Now().Add(left)
	}
	id.ID, id.Info = user, json.RawMessage(about(user))
	return id, nil
}

// authorize keeps the rules for names of channels.
func authorize(r channels.Request) error {
	switch {
	case r.Action == channels.ActionSubscribe && secret(r.Channel), r.Action == channels.ActionPublish && quiet(r.Channel):
		return channels.ErrForbidden
	case r.Action == channels.ActionSubscribe && ticket(r.Channel):
		channel, left, ok := readToken(r.Token)
		switch {
		case !ok || channel != r.Channel:
			return channels.ErrForbidden
		case left < 0:
			return channels.ErrExpired
		case left > 0 && r.Until != nil:
			r.Until(time.Now().Add(left))
		}
	}
	return nil
}

// answerCall answers what clients call, and reports what they only send.
func answerCall(c channels.Call, tell reports) (json.RawMessage, error) {
	switch {
	case c.OneWay:
		tell.calls <- call{c.Client.Identity.ID, string(c.Data)}
		return nil, nil
	case c.Method == "echo":
		return c.Data, nil
	case c.Method == "whoami":
		return json.Marshal(c.Client.Identity.ID)
	case c.Method == "refuse":
		return nil, channels.ErrForbidden
	}
	return nil, channels.ErrNoMethod
}

func (r *replica) addr() string { return r.HTTP.Listener.Addr().String() }

func (r *replica) publish(channel, data string) { r.say(channel, "message", data) }

// say publishes with a header.
func (r *replica) say(channel, header, data string) {
	r.T.Helper()
	_, err := r.Hub.Publish(context.Background(), channel, hubtest.Msg(header, data))
	assert.NoError(r.T, err) // scenarios publish in other goroutines, too
}

// slow is how many clients were closed since they did not read.
func (r *replica) slow() int64 { return r.Hub.Stats().SlowClosed }

func (r *replica) drain() {
	ctx, cancel := context.WithTimeout(r.T.Context(), basetest.Patience)
	defer cancel()
	require.NoError(r.T, r.Hub.Drain(ctx))
}

// dismiss ends a user's connections for good.
func (r *replica) dismiss(user string) {
	_, err := r.Hub.DisconnectUser(r.T.Context(), user)
	require.NoError(r.T, err)
}

// subscribe gives a user a channel.
func (r *replica) subscribe(user, channel string) {
	_, err := r.Hub.SubscribeUser(r.T.Context(), user, channel)
	require.NoError(r.T, err)
}

// unsubscribe takes a channel from a user.
func (r *replica) unsubscribe(user, channel string) {
	_, err := r.Hub.UnsubscribeUser(r.T.Context(), user, channel)
	require.NoError(r.T, err)
}
