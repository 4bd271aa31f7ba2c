package channels

import (
	"context"
	"fmt"
	"sync"
)

// A Post is one message of [Hub.PublishMany].
type Post struct {
	Channel string
	Message Message
	Options PublishOptions
}

// Posted is what became of a [Post].
type Posted struct {
	Result
	Err error // as of Hub.Publish; nil if the message was published
}

// PublishMany publishes up to 1000 messages, as [Hub.PublishWith] publishes each. It
// returns what became of each, in their order, and the error of the first one that
// failed. Each is published or fails by itself: there is no transaction.
//
// Messages of one channel keep their order. Different channels do not wait for each
// other, so that their messages share the Store's round trips, and OnPublish may be
// called by several goroutines at a time.
//
// If there are too many messages, or together they are longer than a POST /v1/publish
// may be, it publishes none: then the results are nil and the error is [ErrTooLarge].
func (h *Hub) PublishMany(ctx context.Context, posts []Post) ([]Posted, error) {
	size, bound := 0, h.opts.batchBytes()
	for i := range posts {
		size += len(posts[i].Message.Header) + len(posts[i].Message.Body)
	}
	switch {
	case len(posts) > maxBatch:
		return nil, ErrTooLarge.saying("PublishMany publishes at most %d messages at a time, not %d", maxBatch, len(posts))
	case size > bound:
		return nil, ErrTooLarge.saying("PublishMany publishes at most %d bytes at a time; these messages have %d", bound, size)
	}
	all := h.publishBatch(doorGo, len(posts), func(i int) string { return posts[i].Channel }, func(i int) (Result, error) {
		body, err := h.ownBody(posts[i].Message.Body)
		if err != nil {
			return Result{}, err
		}
		m := Message{Header: posts[i].Message.Header, Body: body}
		return h.publish(ctx, Publication{Channel: posts[i].Channel, Message: m}, posts[i].Options)
	})
	for i := range all {
		if err := all[i].Err; err != nil {
			return all, fmt.Errorf("channels: message %d of %d, on %.210q: %w", i+1, len(all), posts[i].Channel, err)
		}
	}
	return all, nil
}

// publishers is how many channels of a batch are published on at a time.
const publishers = 32

// publishBatch calls publish for each of n messages, with its place among them. Where
// the Store does not have to be waited for, it does so in order.
func (h *Hub) publishBatch(by door, n int, channelOf func(i int) string, publish func(i int) (Result, error)) []Posted {
	all := make([]Posted, n)
	one := func(i int) {
		all[i].Err = h.guard("publishing", func() (err error) {
			all[i].Result, err = publish(i)
			return err
		})
		h.stats.publishes[by].note(all[i].Duplicate, all[i].Err)
	}
	if h.store.memory {
		for i := range n {
			one(i)
		}
		return all
	}
	places := make(map[string][]int)
	for i := range n {
		places[channelOf(i)] = append(places[channelOf(i)], i)
	}
	var working sync.WaitGroup
	room := make(chan struct{}, publishers)
	for _, ofChannel := range places {
		room <- struct{}{}
		working.Go(func() { // publishBatch waits for it
			defer func() { <-room }()
			for _, i := range ofChannel {
				one(i)
			}
		})
	}
	working.Wait()
	return all
}
