package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/mesh"
)

// plainRedis links replicas over Redis in the usual way: one PUBLISH for each
// message, one SUBSCRIBE for each channel. It loses messages without reporting
// it, which the benchmark would notice.
type plainRedis struct {
	id     string
	client *redis.Client
	subs   *redis.PubSub
}

func newPlainRedis(id, addr string) mesh.Mesh {
	c := redis.NewClient(&redis.Options{Addr: addr})
	return &plainRedis{id, c, c.Subscribe(background, "plain:")}
}

func (m *plainRedis) Publish(ctx context.Context, p mesh.Packet) error {
	b := make([]byte, 0, 128+len(p.Body))
	b = append(b, byte(p.Kind))
	for _, s := range []string{m.id, p.To, p.Header} {
		b = append(append(b, s...), 0)
	}
	return m.client.Publish(ctx, "plain:"+p.Channel, append(b, p.Body...)).Err()
}

func (m *plainRedis) Subscribe(channel string) error {
	return m.subs.Subscribe(background, "plain:"+channel)
}

func (m *plainRedis) Unsubscribe(channel string) error {
	return m.subs.Unsubscribe(background, "plain:"+channel)
}

// No benchmark has patterns.
func (m *plainRedis) SubscribePrefix(string) error   { return errors.ErrUnsupported }
func (m *plainRedis) UnsubscribePrefix(string) error { return errors.ErrUnsupported }

func (m *plainRedis) Receive(ctx context.Context, deliver func(mesh.Packet)) error {
	for {
		msg, err := m.subs.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		part := strings.SplitN(msg.Payload[1:], "\x00", 4)
		if len(part) < 4 {
			return errors.New("plain: not a message")
		}
		if part[0] != m.id && (part[1] == "" || part[1] == m.id) {
			deliver(mesh.Packet{Kind: mesh.Kind(msg.Payload[0]), Channel: strings.TrimPrefix(msg.Channel, "plain:"), Origin: part[0], To: part[1],
				Header: part[2], Body: json.RawMessage(part[3])})
		}
	}
}

func (m *plainRedis) Status() mesh.Status { return mesh.Status{} }

func (m *plainRedis) Close() error { return errors.Join(m.subs.Close(), m.client.Close()) }
