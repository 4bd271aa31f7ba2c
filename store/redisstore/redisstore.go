package redisstore

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/internal/gate"
	"github.com/channels-go/channels/internal/redisclient"
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

	lanes      []lane // calls wait here for each other; see batch.go
	reads      reads
	records    records     // see records.go
	topKeys    int         // how many logs one script may read; see tops.go
	prolonging atomic.Bool // see tops.go

	ctx   context.Context // ends with Close
	close context.CancelFunc
	calls gate.Gate // goroutines, which Close waits for
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
	o.Prefix = cmp.Or(o.Prefix, "channels")
	if err := redisclient.CheckPrefix(o.Prefix); err != nil {
		return nil, fmt.Errorf("redisstore: Options.Prefix %w", err)
	}
	cluster, err := redisclient.Check(client, "keep logs: while one of its servers is down, it uses another one, and a channel would have two histories")
	if err != nil {
		return nil, fmt.Errorf("redisstore: %w", err)
	}
	s := &Store{client: client, cluster: cluster, keys: keys{o.Prefix}, lanes: make([]lane, 1), topKeys: topKeys}
	if cluster != nil {
		s.lanes = make([]lane, clusterLanes) // one master that hangs must not delay calls to the others
		s.topKeys = 1                        // all keys of a script must be in one slot
	}
	for i := range s.lanes {
		s.lanes[i].asking = make(chan struct{}, questions)
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
	s.close()
	s.calls.ShutWithin(closeWait)
	return nil
}

// enter begins every method.
func (s *Store) enter(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return store.ErrClosed
	}
	return ctx.Err()
}
