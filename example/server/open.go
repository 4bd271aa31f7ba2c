package main

import (
	"log/slog"
	"net"
	"slices"

	"github.com/channels-go/channels"
)

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// sayWhatIsOpen tells the operator what nobody has to show a token or key for,
// and which websites may come.
func sayWhatIsOpen(s *security, o *channels.Options, addr net.Addr, log *slog.Logger) {
	if len(o.Hosts) > 0 {
		log.Info("answers to localhost, to addresses and to these hosts only; -host names others", "hosts", o.Hosts)
	}
	switch {
	case s.open() && isLoopback(addr):
		log.Info("open to everybody on this machine: who reaches this address may subscribe, publish, and list and read everything; -jwt-secret-file, -jwt-public-key or -api-keys-file close it", "addr", addr.String())
	case s.open():
		log.Warn("open to everybody: who reaches this address may subscribe, publish, and list and read everything; -jwt-secret-file, -jwt-public-key or -api-keys-file close it", "addr", addr.String())
	case s.anybody():
		log.Info("open to everybody without a token or key", "subscribe", s.anonymous.String(), "publish", s.rest.publish.String(), "list", s.rest.list)
	}
	if slices.Contains(o.AllowedOrigins, "*") {
		log.Warn("-origin '*' lets the pages of every website connect, and WebSockets with their visitors' cookies: name the origins that you trust, unless all data is public")
	}
	if slices.Contains(o.AllowedOrigins, "null") {
		log.Warn("-origin null lets in the pages of apps and files, and also every website that puts a frame into a sandbox: give such apps an origin of their own, unless all data is public")
	}
}
