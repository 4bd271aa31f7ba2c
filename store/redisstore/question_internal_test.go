package redisstore

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

// However many subscribers come at once, their questions leave connections for others.
func TestQuestionsLeaveConnections(t *testing.T) {
	for name, ask := range map[string]func(*Store, string) error{
		"Range": func(s *Store, channel string) error {
			_, err := s.Range(context.Background(), channel, store.Query{Limit: 1})
			return err
		},
		"Tops": func(s *Store, channel string) error {
			_, err := s.Tops(context.Background(), []string{channel})
			return err
		},
		"Begin": func(s *Store, channel string) error {
			_, err := s.Begin(context.Background(), channel)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
				defer c.Close()
				h := &holding{proceed: make(chan struct{})}
				c.AddHook(h)
				s, err := New(c, Options{})
				require.NoError(t, err)
				defer s.Close()
				const many = 20
				answered := make(chan error, many)
				for i := range many {
					go func() { answered <- ask(s, fmt.Sprint("c", i)) }()
				}
				synctest.Wait()
				assert.EqualValues(t, questions, h.on.Load())
				close(h.proceed)
				for range many {
					require.ErrorContains(t, <-answered, "it was held")
				}
			})
		})
	}
}

// holding is a Redis that fails once it may go on.
type holding struct {
	on      atomic.Int32 // commands on their way
	proceed chan struct{}
}

func (h *holding) DialHook(next redis.DialHook) redis.DialHook { return next }
func (h *holding) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, c redis.Cmder) error {
		h.on.Add(1)
		<-h.proceed
		err := fmt.Errorf("it was held")
		c.SetErr(err)
		return err
	}
}
func (h *holding) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
