package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/store"
)

// Options configure a [Store]. The zero value is ready to use.
type Options struct {
	// Prefix begins the name of every key. Stores with different prefixes on
	// one Redis never see each other's data. 1 to 100 of A-Z, a-z, 0-9, "-",
	// "_", ".", "/" and ":". Default "channels".
	Prefix string
}

// Store is a [store.Store] in Redis. Its methods may be called by many
// goroutines at the same time. They return when their context ends, also where
// Redis hangs; what they have sent by then may still take effect.
type Store struct {
	client  redis.UniversalClient
	cluster *redis.ClusterClient // nil for one server at a time
	keys    keys

	lanes      []lane // appends wait here, see batch.go
	reads      reads
	records    records     // see records.go
	prolonging atomic.Bool // see losses.go of the hub

	ctx   context.Context // ends with Close
	close context.CancelFunc
	mu    sync.Mutex // orders run before Close's waiting
	calls sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// New returns a Store that uses client, which stays the caller's to close. It
// sends nothing: a server that is down now makes the methods fail, not New.
//
// The client is one of [redis.NewClient], [redis.NewFailoverClient] (Sentinel)
// or [redis.NewClusterClient]; see the package's documentation for options
// that suit. A *[redis.Ring] is refused: where one of its servers is down, it
// would go on with the logs of another.
func New(client redis.UniversalClient, o Options) (*Store, error) {
	if o.Prefix == "" {
		o.Prefix = "channels"
	}
	if len(o.Prefix) > 100 || strings.Trim(o.Prefix, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./:") != "" {
		return nil, fmt.Errorf("redisstore: Options.Prefix is %.110q; it may be 1 to 100 of A-Z, a-z, 0-9, '-', '_', '.', '/' and ':'", o.Prefix)
	}
	s := &Store{client: client, keys: keys{o.Prefix}, lanes: make([]lane, 1)}
	switch c := client.(type) {
	case nil:
		return nil, errors.New("redisstore: the client is nil; it may be what redis.NewClient, NewFailoverClient or NewClusterClient returns")
	case *redis.Ring:
		return nil, errors.New("redisstore: a redis.Ring cannot keep logs: while one of its servers is down it asks another one, and a channel would have two histories; use a Redis Cluster, Sentinel or a single server")
	case *redis.Client:
		if c == nil {
			return nil, errors.New("redisstore: the client is a nil *redis.Client")
		}
	case *redis.ClusterClient:
		if c == nil {
			return nil, errors.New("redisstore: the client is a nil *redis.ClusterClient")
		}
		// A master that hangs must not hold up the others' appends.
		s.cluster, s.lanes = c, make([]lane, clusterLanes)
	default:
		return nil, fmt.Errorf("redisstore: the client is a %T; it may be a *redis.Client or a *redis.ClusterClient", client)
	}
	s.ctx, s.close = context.WithCancel(context.Background())
	return s, nil
}

// closeWait bounds how long Close waits for calls that Redis does not answer.
// They end by the client's own timeouts.
const closeWait = time.Second

// Close implements [store.Store]. The client stays open. Calls that are under
// way return [store.ErrClosed].
func (s *Store) Close() error {
	s.mu.Lock()
	s.close()
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends when the last call has
		s.calls.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(closeWait):
	}
	return nil
}

// enter is the beginning of every method.
func (s *Store) enter(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return store.ErrClosed
	}
	return ctx.Err()
}

// goes runs f in a goroutine that Close waits for; false after Close.
func (s *Store) goes(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.calls.Go(f)
	return true
}
