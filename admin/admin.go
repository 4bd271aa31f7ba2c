package admin

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/channels-go/channels"
)

// An Admin serves the operators' page of a hub. All its methods may be called
// concurrently. Mount it below a path that ends with a slash, with
// [http.StripPrefix].
type Admin struct {
	hub  *channels.Hub
	opts Options

	key     [32]byte // what sessions are signed with
	token   [32]byte // the hash of Options.Token
	guesses guesses
	mux     *http.ServeMux
	watch   watch
	lists   lists
	rooms   rooms
	scaling scaling
	tails   chan struct{} // holds one for each live tail
	views   views
	tasks   tasks
	ctx     context.Context
	stop    context.CancelFunc // ends ctx
	closing sync.Once
	wait    time.Duration // closeTimeout, but in tests
}

// New returns the page of a hub, and begins to watch its replicas. Close ends that.
// It refuses options that would let everybody in.
func New(hub *channels.Hub, o Options) (*Admin, error) {
	if hub == nil {
		return nil, errors.New("admin: New needs a hub")
	}
	o.setDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	a := &Admin{hub: hub, opts: o, tails: make(chan struct{}, maxTails), wait: closeTimeout}
	a.ctx, a.stop = context.WithCancel(context.Background())
	a.token = sha256.Sum256([]byte(o.Token))
	a.key = sha256.Sum256([]byte("channels admin session: " + o.Token))
	a.watch.init(hub, a.scaling.wants, time.Now)
	a.lists.init(hub, &a.views)
	a.rooms.init(hub, &a.views)
	a.scaling.scaler, a.scaling.missing.born = o.Scaler, time.Now()
	a.mux = a.routes()
	a.tasks.run("the look at the replicas", a.sample)
	return a, nil
}

// Close ends the live tails and what watches the replicas, and waits for what is under
// way, for at most 12 s: what lasts longer is a Scaler that heeds no context, and the
// error says so. Afterwards the page answers 503. Call it before the hub's Shutdown or
// after it. A second Close returns nil.
func (a *Admin) Close() (err error) {
	a.closing.Do(func() {
		a.stop()
		err = a.tasks.shut(a.wait)
	})
	return err
}

// closeTimeout is a little more than the time that anything is given.
const closeTimeout = scaleTimeout + 2*time.Second

// sample takes a point once a second, until Close.
func (a *Admin) sample() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-t.C:
			a.watch.sample()
			a.lists.forget()
			a.rooms.forget()
		}
	}
}

var errClosed = refused("closed", http.StatusServiceUnavailable, "this replica is shut down; load the page again to reach another one")

// ServeHTTP serves the page, its files, and what it asks for.
func (a *Admin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	if a.tasks.gate.Closed() {
		refuse(w, r, errClosed)
		return
	}
	if r.URL.Path == "" { // without the last slash, what the page loads would be beside it
		whole, _, _ := strings.Cut(r.RequestURI, "?")
		w.Header().Set("Location", path.Base(whole)+"/")
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// secure lets a browser load and run only what this handler serves.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin") // with no-referrer, the form's Origin would be null
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}
