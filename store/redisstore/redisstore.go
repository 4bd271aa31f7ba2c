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

// Options configures a [Store]. The zero value is ready to use.
type Options struct {
	// Prefix begins the name of every key. Stores with different prefixes on
	// one Redis never see each other's data. 1 to 100 of A-Z, a-z, 0-9, "-",
	// "_", ".", "/" and ":". Default "channels".
	Prefix string
}

// Store is a [store.Store] in Redis. All methods may be called concurrently.
// They return when their context ends, even if Redis hangs; commands that were
// already sent may still take effect.
type Store struct {
	client  redis.UniversalClient
	cluster *redis.ClusterClient // nil for one server at a time
	keys    keys

	lanes      []lane // appends wait here; see batch.go
	reads      reads
	records    records     // see records.go
	prolonging atomic.Bool // see losses.go of the hub

	ctx   context.Context // ends with Close
	close context.CancelFunc
	mu    sync.Mutex // makes starting a call and Close exclude each other
	calls sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// New returns a Store that uses client. The caller still has to close client.
// New sends nothing: if the server is down, the methods fail, not New.
//
// client is the result of [redis.NewClient], [redis.NewFailoverClient]
// (Sentinel) or [redis.NewClusterClient]; the package documentation names
// options that suit. New refuses a *[redis.Ring]: if one of its servers is
// down, it would go on with the logs of another one.
func New(client redis.UniversalClient, o Options) (*Store, error) {
	if o.Prefix == "" {
		o.Prefix = "channels"
	}
	if len(o.Prefix) > 100 || strings.Trim(o.Prefix, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./:") != "" {
		return nil, fmt.Errorf("redisstore: Options.Prefix is %.110q; it must be 1 to 100 of A-Z, a-z, 0-9, '-', '_', '.', '/' and ':'", o.Prefix)
	}
	s := &Store{client: client, keys: keys{o.Prefix}, lanes: make([]lane, 1)}
	switch c := client.(type) {
	case nil:
		return nil, errors.New("redisstore: the client is nil; pass what redis.NewClient, NewFailoverClient or NewClusterClient returns")
	case *redis.Ring:
		return nil, errors.New("redisstore: a redis.Ring cannot keep logs: while one of its servers is down, it uses another one, and a channel would have two histories; use a Redis Cluster, Sentinel or a single server")
	case *redis.Client:
		if c == nil {
			return nil, errors.New("redisstore: the client is a nil *redis.Client; pass what redis.NewClient or NewFailoverClient returns")
		}
	case *redis.ClusterClient:
		if c == nil {
			return nil, errors.New("redisstore: the client is a nil *redis.ClusterClient; pass what redis.NewClusterClient returns")
		}
		// One master that hangs must not delay appends to the others.
		s.cluster, s.lanes = c, make([]lane, clusterLanes)
	default:
		return nil, fmt.Errorf("redisstore: the client is a %T; it must be a *redis.Client or a *redis.ClusterClient", client)
	}
	s.ctx, s.close = context.WithCancel(context.Background())
	return s, nil
}

// closeWait is how long Close waits for calls that Redis does not answer. The
// client's own timeouts end them.
const closeWait = time.Second

// Close implements [store.Store]. It does not close the client. Calls in
// progress return [store.ErrClosed].
func (s *Store) Close() error {
	s.mu.Lock()
	s.close()
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends with the last call
		s.calls.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(closeWait):
	}
	return nil
}

// enter begins every method.
func (s *Store) enter(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return store.ErrClosed
	}
	return ctx.Err()
}

// goes runs f in a goroutine that Close waits for. It returns false after
// Close.
func (s *Store) goes(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.calls.Go(f)
	return true
}
