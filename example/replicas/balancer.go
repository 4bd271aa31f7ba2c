package main

import (
	"context"
	"embed"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/channels-go/channels/client/js"
	"github.com/channels-go/channels/example/internal/web"
)

//go:embed page
var page embed.FS

// routes serves the page, the replicas behind it, and the switches that kill
// and start them and the load.
func routes(s *supervisor, l *load) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", web.Page(page, "'none'"))
	balanced := balance(s, s.choose)
	mux.Handle("/admin/", balance(s, s.first))
	mux.HandleFunc("GET /operators", operators(s.config.Token))
	mux.HandleFunc("GET /channels.js", func(w http.ResponseWriter, r *http.Request) { // the page needs it even if no replica runs
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(js.Module()))
	})
	for _, path := range []string{"/connection/", "/channel/", "/v1/", "/readyz"} { // the last for a load balancer in front of this one
		mux.Handle(path, balanced)
	}
	mux.HandleFunc("GET /replicas", func(w http.ResponseWriter, _ *http.Request) {
		web.Answer(w, map[string]any{"data": s.states(), "history": s.config.Redis != "", "load": l.state()})
	})
	mux.Handle("POST /replicas/{n}/kill", guarded(one(s, s.kill)))
	mux.Handle("POST /replicas/{n}/start", guarded(one(s, s.launch)))
	mux.Handle("POST /load/start", guarded(func(w http.ResponseWriter, _ *http.Request) {
		l.start()
		w.WriteHeader(http.StatusNoContent)
	}))
	mux.Handle("POST /load/stop", guarded(func(w http.ResponseWriter, _ *http.Request) {
		l.stop()
		w.WriteHeader(http.StatusNoContent)
	}))
	return mux
}

// balance sends each request to one of the replicas. Each request has its own
// connection, so the replica is chosen when connecting: if one cannot be
// reached, the next is tried.
func balance(s *supervisor, choose func(tried []*replica) (*replica, string)) http.Handler {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "replica"
			p.Out.Host = p.In.Host // the hub compares it with the page's Origin
			p.SetXForwarded()
		},
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var tried []*replica
				err := errors.New("no replica is running")
				for {
					r, address := choose(tried)
					if r == nil {
						return nil, err
					}
					tried = append(tried, r)
					var c net.Conn
					if c, err = dialer.DialContext(ctx, network, address); err == nil {
						return &counted{Conn: c, release: sync.OnceFunc(func() { s.release(r) })}, nil
					}
					s.release(r)
				}
			},
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "no replica can be reached", http.StatusBadGateway)
		},
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug), // the supervisor logs which replica has ended
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
			rc := http.NewResponseController(w)
			rc.SetReadDeadline(time.Time{})
			rc.SetWriteDeadline(time.Time{})
		}
		proxy.ServeHTTP(w, r)
	})
}

// counted is a connection to a replica.
type counted struct {
	net.Conn
	release func()
}

func (c *counted) Close() error {
	c.release()
	return c.Conn.Close()
}

// guarded is a switch. Only a browser on this machine may use it, and no page of
// another website there.
func guarded(do http.HandlerFunc) http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !here(r) {
			http.Error(w, "allowed only from the machine that this runs on, under a loopback address", http.StatusForbidden)
			return
		}
		do(w, r)
	}))
}

// operators leads to the operators' page: whoever may press the switches is logged in
// there, others need the link that the terminal has. A browser sends what comes after
// "#" to nobody.
func operators(token string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		to := "/admin/"
		if here(r) {
			to += "#token=" + token
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
	}
}

// here reports whether a request comes from this machine. It checks the Host too:
// another website could point its name at this machine. What a proxy or a tunnel
// forwards may come from anywhere, even if it names this machine as the Host.
func here(r *http.Request) bool {
	for _, by := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"} {
		if r.Header[by] != nil {
			return false
		}
	}
	return loopback(r.RemoteAddr) && loopback(r.Host)
}

// one does something with the replica whose number is in the path.
func one(s *supervisor, do func(*replica) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil {
			http.Error(w, "a replica is called by its number", http.StatusNotFound)
			return
		}
		replica, err := s.number(n)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		if err := do(replica); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// loopback reports whether a host, with or without a port, is this machine.
func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
