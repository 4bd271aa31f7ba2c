package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/example/internal/web"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/zmqmesh"
	"github.com/channels-go/channels/middleware"
	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore"
)

// replicaCommand is the argument that runs this program as a replica.
const replicaCommand = "replica"

// replicaConfig is a replica's configuration, sent as a line of JSON on its
// standard input: everyone can read a command line, and it has secrets.
type replicaConfig struct {
	Node       string   // its name
	Redis      string   // URL; empty: each replica keeps its own data in memory
	Hosts      []string // names that it answers to, besides localhost and IP addresses
	Token      string   // opens the operators' page; people have it in a link
	MeshKey    string   // of the replicas, to each other
	ScaleToken string   // of the replicas, to the supervisor
	Supervisor string   // the URL of what starts and ends replicas
}

// newSecrets makes one for each purpose: who has the link to the page can neither
// speak as a replica nor scale past the page's limits.
func (c *replicaConfig) newSecrets() {
	c.Token, c.MeshKey, c.ScaleToken = rand.Text(), rand.Text(), rand.Text()
}

// addresses are where a replica listens. It writes them as a line of JSON to
// its standard output. Further lines on its input tell it where the others are:
// a map from their names to their Mesh.
type addresses struct {
	HTTP string // host:port, for the balancer
	Mesh string // tcp://host:port, for the other replicas
}

// runReplica runs one replica, as it could run on a server of its own. It ends
// when its input does: then its parent wants it to end, or is dead.
func runReplica(input io.Reader, output io.Writer) error {
	signal.Ignore(os.Interrupt) // Ctrl-C reaches all processes of a terminal
	in := json.NewDecoder(input)
	var cfg replicaConfig
	if err := in.Decode(&cfg); err != nil {
		return fmt.Errorf("no configuration on the standard input: %w", err)
	}
	slog.SetDefault(slog.New(quiet{slog.NewTextHandler(os.Stderr, nil)}).With("on", cfg.Node))
	// Links that come up would push the operators' link out of the terminal.
	meshLog := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})).With("on", cfg.Node)
	// Other users of this machine can reach the mesh too, so it has a key.
	m, err := zmqmesh.New(zmqmesh.Options{ReplicaID: cfg.Node, Listen: "tcp://127.0.0.1:0", Key: []byte(cfg.MeshKey), Logger: meshLog})
	if err != nil {
		return err
	}
	defer m.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := json.NewEncoder(output).Encode(addresses{listener.Addr().String(), m.Address()}); err != nil {
		return err
	}
	ctx, end := context.WithCancel(context.Background())
	go func() { // ends with the input
		defer end()
		for {
			var peers map[string]string
			if in.Decode(&peers) != nil {
				return
			}
			delete(peers, cfg.Node)
			m.SetPeers(peers)
		}
	}()
	return serveReplica(ctx, cfg, m, listener)
}

// told is a mesh whose peers come from the supervisor. It hides SetPeers from
// the hub, which would take them from the Store.
type told struct{ mesh.Mesh }

func serveReplica(ctx context.Context, cfg replicaConfig, m mesh.Mesh, listener net.Listener) error {
	st, closeStore, err := openStore(cfg.Redis)
	if err != nil {
		return err
	}
	defer closeStore()
	hub, err := channels.New(channels.Options{
		ReplicaID:  cfg.Node,
		Store:      st,
		Mesh:       told{m},
		Hosts:      append([]string{"localhost"}, cfg.Hosts...), // for clients that connect to its port directly; nobody has to log in
		DrainDelay: web.DrainDelay,
		Channel: func(name string) channels.ChannelOptions {
			o := channels.ChannelOptions{Presence: channels.PresenceEvents, HistorySize: 200, HistoryTTL: 24 * time.Hour}
			if strings.HasPrefix(name, loadPrefix) { // much is said; only the operators' page looks who is there
				o = channels.ChannelOptions{Presence: channels.PresenceList, HistorySize: 2000, HistoryTTL: 10 * time.Minute}
			}
			if cfg.Redis == "" { // the same history on all replicas, or none
				o.HistorySize, o.HistoryTTL = 0, 0
			}
			return o
		},
		Authenticate: authenticate,
		OnPublish:    func(_ context.Context, p *channels.Publication) error { return check(p, cfg.Node) },
		OnCall: func(_ context.Context, c channels.Call) (json.RawMessage, error) {
			if c.Method != "where" {
				return nil, channels.ErrNoMethod
			}
			return json.Marshal(cfg.Node)
		},
	})
	if err != nil {
		return err
	}
	operators, err := admin.New(hub, admin.Options{
		Token:    cfg.Token,
		Scaler:   &scaler{hub, cfg.Supervisor, cfg.ScaleToken},
		ScaleMin: 1, ScaleMax: maxReplicas,
	})
	if err != nil {
		return errors.Join(err, hub.Shutdown(ctx))
	}
	own, err := middleware.Hosts(cfg.Hosts...)
	if err != nil {
		return errors.Join(err, operators.Close(), hub.Shutdown(ctx))
	}
	mux := http.NewServeMux()
	mux.Handle("/", lookedAt(hub.Handler()))
	mux.Handle("/admin/", own(http.StripPrefix("/admin", operators)))
	server := web.NewServer(mux)
	err = web.Serve(ctx, server, listener)
	// More than the delay and the 5 s in which a client must answer a close
	// frame, and less than the supervisor waits. Clients that are still
	// connected then are cut off, which is not a failure.
	bounded, cancel := context.WithTimeout(context.Background(), web.DrainDelay+8*time.Second)
	defer cancel()
	err = errors.Join(err,
		unlessLate(hub.Drain(bounded)),    // tells every page when to reconnect, then closes the connections
		operators.Close(),                 // its page finds another replica
		unlessLate(hub.Shutdown(bounded))) // ends the hub's goroutines
	if server.Shutdown(bounded) != nil { // waits for the last requests
		server.Close()
	}
	return errors.Join(err, m.Close()) // sends what is queued for the others
}

func unlessLate(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// look is the context key of the supervisor's requests to /readyz.
type look struct{}

// lookedAt marks these requests for quiet.
func lookedAt(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			r = r.WithContext(context.WithValue(r.Context(), look{}, true))
		}
		next.ServeHTTP(w, r)
	})
}

// quiet logs nothing that these requests cause. The page shows a refused one as
// a light, twice a second.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return ctx.Value(look{}) == nil && q.Handler.Enabled(ctx, level)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }

// openStore returns the shared Store, or a Store of the replica's own.
func openStore(url string) (store.Store, func() error, error) {
	if url == "" {
		st, err := store.NewMemory(store.MemoryOptions{})
		if err != nil {
			return nil, nil, err
		}
		return st, st.Close, nil
	}
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, nil, err
	}
	o.ContextTimeoutEnabled = true
	redis.SetLogger(web.RedisLog{Log: slog.Default()})
	client := redis.NewClient(o)
	st, err := redisstore.New(client, redisstore.Options{Prefix: "replicas"})
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return st, func() error { return errors.Join(st.Close(), client.Close()) }, nil
}

// checkRedis checks a URL. Its error does not show it.
func checkRedis(url string) error {
	if _, err := redis.ParseURL(url); url != "" && err != nil {
		return errors.New("-redis (or CHANNELS_REDIS) must be redis://HOST:PORT/DB, rediss://… (with TLS) or unix:///PATH")
	}
	return nil
}

// authenticate tells the hub whose connection it is: that of the name that the page sends.
func authenticate(_ context.Context, _ string, data json.RawMessage) (channels.Identity, error) {
	var page struct{ Name string }
	json.Unmarshal(data, &page)
	if page.Name = strings.TrimSpace(page.Name); !web.ValidName(page.Name) {
		return channels.Identity{}, web.Refusal("a name must have 1 to 40 characters, all of them visible")
	}
	return channels.Identity{ID: page.Name}, nil
}

// say is the body of a chat message.
type say struct {
	Text string    `json:"text"`
	From string    `json:"from"`
	Node string    `json:"node"` // the replica that it was published on
	At   time.Time `json:"at"`
	Key  string    `json:"key,omitempty"` // by which its author's page knows it
}

// check adds to each message its author, the time, and the replica.
func check(p *channels.Publication, node string) error {
	var s say
	err := json.Unmarshal(p.Message.Body, &s)
	header := p.Message.Header
	if header != "say" && header != "test" || err != nil || len(s.Key) > 100 { // test: from the operators' page
		return web.Refusal(`a message has to be like {"header":"say","body":{"text":"hello"}}`)
	}
	if s.Text, err = web.Said(s.Text); err != nil {
		return err
	}
	if s.From = p.Identity.ID; s.From == "" {
		s.From = "a program"
	}
	s.Node, s.At = node, time.Now().UTC().Truncate(time.Millisecond)
	p.Message.Body, err = json.Marshal(s)
	return err
}
