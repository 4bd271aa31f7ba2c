package middleware

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/channels-go/channels"
	origins "github.com/channels-go/channels/internal/origin"
)

// ErrBadHost refuses a request for a host that this server does not answer to.
var ErrBadHost = &channels.Error{Code: "bad_host", Status: http.StatusMisdirectedRequest, Message: "this server does not answer to that host"}

// Hosts refuses with 421 the requests whose Host matches none of the names:
// "app.example.com", "*.example.com" for any subdomain, or "*". Localhost and
// IP addresses are always accepted. Hosts is for the app's own routes what
// Options.Hosts is for the hub's. Without it, a website that points its own
// name at this machine (DNS rebinding) has the same origin as the app.
//
// An error names the invalid name and what is allowed.
func Hosts(names ...string) (func(http.Handler) http.Handler, error) {
	for _, s := range names {
		if err := origins.CheckHost(s); err != nil {
			return nil, fmt.Errorf("middleware: Hosts has %w", err)
		}
	}
	names = slices.Clone(names)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !origins.Answers(names, r.Host) {
				channels.WriteError(w, r, &channels.Error{Code: ErrBadHost.Code, Status: ErrBadHost.Status,
					Message: fmt.Sprintf("this server does not answer to the host %.200q, only to localhost, to IP addresses and to its configured names", r.Host)})
				return
			}
			next.ServeHTTP(w, r)
		})
	}, nil
}
