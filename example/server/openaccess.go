package main

import (
	"log/slog"
	"net"
	"slices"
	"strings"

	"github.com/channels-go/channels"
)

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// sayWhatIsOpen logs what is allowed without a token or key, and which websites
// may connect.
func sayWhatIsOpen(s *security, o *channels.Options, addr net.Addr, log *slog.Logger) {
	if len(o.Hosts) > 0 {
		log.Info("answers only to localhost, IP addresses and these hosts; add others with -host", "hosts", o.Hosts)
	}
	switch {
	case s.open() && isLoopback(addr):
		log.Info("open to everyone on this machine: any program that reaches this address may subscribe, publish, list and read everything; to restrict it, set -jwt-secret-file, -jwt-public-key or -api-keys-file", "addr", addr.String())
	case s.open():
		log.Warn("open to everyone: anyone who reaches this address may subscribe, publish, list and read everything; to restrict it, set -jwt-secret-file, -jwt-public-key or -api-keys-file", "addr", addr.String())
	case s.anybody():
		log.Info("open to everyone without a token or key", "subscribe", strings.Join(s.anonymous.Subscribe, " "), "publish", strings.Join(s.anonymous.Publish, " "), "list", s.anonymous.List)
	}
	if slices.Contains(o.AllowedOrigins, "*") {
		log.Warn("-origin '*' lets pages of every website connect, WebSockets even with their visitors' cookies: list the origins that you trust, unless all data is public")
	}
	if slices.Contains(o.AllowedOrigins, "null") {
		log.Warn("-origin null allows pages of apps and files, but also every website that uses a sandboxed frame: give such apps an origin of their own, unless all data is public")
	}
}
