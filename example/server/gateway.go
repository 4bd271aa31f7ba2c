package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/middleware"
	"github.com/channels-go/channels/zmqgateway"
)

// gatewayConfig has the addresses where ZeroMQ programs read and publish. An
// empty address is not used.
type gatewayConfig struct {
	pub, pull, rep string
	insecure       bool
}

func (c *gatewayConfig) flags(fs *flag.FlagSet) {
	addressFlag(fs, "zmq-pub", &c.pub, listens, "`ADDRESS` where ZeroMQ SUB sockets read all channels without a token, e.g. tcp://127.0.0.1:10022")
	addressFlag(fs, "zmq-pull", &c.pull, listens, "`ADDRESS` where ZeroMQ PUSH sockets publish, e.g. tcp://127.0.0.1:10023")
	addressFlag(fs, "zmq-rep", &c.rep, listens, "`ADDRESS` where ZeroMQ REQ and DEALER sockets publish with an answer, and list channels, e.g. tcp://127.0.0.1:10024")
	fs.BoolVar(&c.insecure, "zmq-insecure", false, "let other machines reach -zmq-pub, and the other two without a token")
}

// check refuses flags without effect, and an open address beside a protected
// one.
func (c *gatewayConfig) check(s *security) error {
	sends := c.pull != "" || c.rep != ""
	switch {
	case c.insecure && !sends && c.pub == "":
		return errors.New("-zmq-insecure is for -zmq-pub, -zmq-pull and -zmq-rep: set one of them, or leave it out")
	case len(s.zmqToken) > 0 && !sends:
		return errors.New("-zmq-token-file is for -zmq-pull and -zmq-rep: set one of them, or leave it out")
	case len(s.zmqToken) == 0 && sends && (len(s.jwt.Keys) > 0 || len(s.apiKeys) > 0):
		return errors.New("-zmq-pull and -zmq-rep need -zmq-token-file if all others need a token or an API key to publish")
	case c.insecure:
		return nil
	case c.pub != "" && !private(c.pub):
		return fmt.Errorf("-zmq-pub is %s, where others can read all channels without a token: that needs -zmq-insecure", c.pub)
	}
	for _, f := range []struct{ name, address string }{{"-zmq-pull", c.pull}, {"-zmq-rep", c.rep}} {
		if f.address != "" && !private(f.address) && len(s.zmqToken) == 0 {
			return fmt.Errorf("%s is %s, which others can reach: it needs -zmq-token-file (or -zmq-insecure, if every program on that network is trusted)", f.name, f.address)
		}
	}
	return nil
}

// open opens the gateway. It returns a function that closes it.
func (c *gatewayConfig) open(hub *channels.Hub, token []byte, log *slog.Logger) (func(), error) {
	if c.pub == "" && c.pull == "" && c.rep == "" {
		return func() {}, nil
	}
	var id channels.Identity // stays empty without a token
	if len(token) > 0 {
		id = channels.Identity{ID: "zmq:gateway", Value: middleware.Grants{Publish: []string{"*"}, List: true}}
	}
	g, err := zmqgateway.New(zmqgateway.Options{
		Hub: hub, Identity: id, Pub: c.pub, Pull: c.pull, Rep: c.rep, Token: token, Insecure: c.insecure, Logger: log})
	if err != nil {
		return nil, notListening("-zmq-pub, -zmq-pull or -zmq-rep", err)
	}
	pub, pull, rep := g.Addresses()
	log.Info("listening for ZeroMQ", given("pub", pub, "pull", pull, "rep", rep)...)
	return func() { g.Close() }, nil
}

// given returns the pairs of key and value whose value is not empty, for a log
// record.
func given(pairs ...string) (attrs []any) {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			attrs = append(attrs, pairs[i], pairs[i+1])
		}
	}
	return attrs
}
