package main

import (
	"log/slog"
	"net/http"
	"strings"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/middleware"
)

// adminPath is where the operators' page is.
const adminPath = "/admin"

// withAdmin puts the operators' page beside the hub, if there is a token for it, and
// returns what closes the page. The page lets in by its own token, so the clients' tokens
// and limits do not apply to it.
func withAdmin(hub *channels.Hub, cfg *config, o *channels.Options, clients http.Handler, log *slog.Logger) (http.Handler, func() error, error) {
	if cfg.admin.Token == "" {
		return clients, func() error { return nil }, nil
	}
	scaler, err := cfg.scaler()
	if err != nil {
		return nil, nil, err
	}
	cfg.admin.Logger, cfg.admin.Scaler = log, scaler
	page, err := admin.New(hub, cfg.admin)
	if err != nil {
		return nil, nil, err
	}
	operators := middleware.Recover(log)(atRoot(http.StripPrefix(adminPath, page)))
	if len(o.Hosts) > 0 {
		hosts, err := middleware.Hosts(o.Hosts...)
		if err != nil {
			return nil, nil, err
		}
		operators = hosts(operators)
	}
	if len(cfg.security.proxies) > 0 { // for the throttle of wrong tokens, and the log
		trust, err := middleware.TrustProxies(cfg.security.proxies...)
		if err != nil {
			return nil, nil, err
		}
		operators = trust(operators)
	}
	log.Info("serves the operators' page", "path", adminPath+"/")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" || r.URL.Path == adminPath || strings.HasPrefix(r.URL.Path, adminPath+"/") {
			operators.ServeHTTP(w, r)
			return
		}
		clients.ServeHTTP(w, r)
	}), page.Close, nil
}

// atRoot tells who knows only the host where the operators' page is.
func atRoot(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			channels.WriteError(w, r, &channels.Error{Code: "not_found", Status: http.StatusNotFound, Message: "there is nothing at /; clients are served at /channel/NAME/, /connection/websocket and what else docs/protocol.md lists, operators at " + adminPath + "/"})
			return
		}
		next.ServeHTTP(w, r)
	})
}
