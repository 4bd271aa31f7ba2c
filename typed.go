package channels

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"
)

// A Typed publishes and receives values of one type on one channel, as JSON.
// Get one with [Of].
type Typed[T any] struct {
	hub     *Hub
	channel string
}

// Of returns a typed view of a channel.
func Of[T any](h *Hub, channel string) Typed[T] { return Typed[T]{h, channel} }

// A Value is a message whose body is a T.
type Value[T any] struct {
	Header string
	Body   T

	Position Position  // zero if the channel keeps no history
	Time     time.Time // as in Message
}

// Publish is [Hub.Publish] with v as the body.
func (t Typed[T]) Publish(ctx context.Context, header string, v T) (Result, error) {
	return t.PublishWith(ctx, header, v, PublishOptions{})
}

// PublishWith is [Hub.PublishWith] with v as the body.
func (t Typed[T]) PublishWith(ctx context.Context, header string, v T, o PublishOptions) (Result, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return Result{}, fmt.Errorf("channels: %s: encoding the body: %w", t.channel, err)
	}
	return t.hub.PublishWith(ctx, t.channel, Message{Header: header, Body: b}, o)
}

// Subscribe is [Hub.Subscribe].
func (t Typed[T]) Subscribe(ctx context.Context, from *Position) (*TypedSubscription[T], error) {
	s, err := t.hub.Subscribe(ctx, t.channel, from)
	if err != nil {
		return nil, err
	}
	return &TypedSubscription[T]{s}, nil
}

// SubscribeLast is [Hub.SubscribeLast].
func (t Typed[T]) SubscribeLast(ctx context.Context, n int) (*TypedSubscription[T], error) {
	s, err := t.hub.SubscribeLast(ctx, t.channel, n)
	if err != nil {
		return nil, err
	}
	return &TypedSubscription[T]{s}, nil
}

// A TypedSubscription is a [Subscription] whose Values are decoded.
type TypedSubscription[T any] struct{ *Subscription }

// Values yields the messages that Messages yields, decoded. For a body that is not
// a T it yields an error that names the message's header and position, and the
// loop may go on. Presence events are left out.
func (s *TypedSubscription[T]) Values() iter.Seq2[Value[T], error] {
	return func(yield func(Value[T], error) bool) {
		for m, err := range s.Messages() {
			if err == nil && m.Header == headerPresence {
				continue
			}
			v := Value[T]{Header: m.Header, Position: m.Position, Time: m.Time}
			if err == nil {
				if err = json.Unmarshal(m.Body, &v.Body); err != nil {
					err = fmt.Errorf("channels: message %q at %s: %w", m.Header, m.Position, err)
				}
			}
			if !yield(v, err) {
				return
			}
		}
	}
}
