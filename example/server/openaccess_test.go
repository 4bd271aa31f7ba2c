package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Without tokens and on a loopback address, the server refuses a website whose
// own name resolves to that address. Nothing changes behind a proxy with a host
// name, or with tokens.
func TestServerAnswersToItsHosts(t *testing.T) {
	ask := func(addr, host string, header ...string) int {
		code, _ := call(t, "GET", "http://"+addr+"/v1/nodes", "", append(header, "Host", host)...)
		return code
	}
	for name, c := range map[string]struct {
		args   []string
		env    map[string]string
		header []string
		evil   int
		app    int
	}{
		"open, on loopback":   {evil: 421, app: 421},
		"open, with a host":   {args: []string{"-host", "app.example"}, evil: 421, app: 200},
		"open, with any host": {args: []string{"-host", "*"}, evil: 200, app: 200},
		"open, for all":       {args: []string{"-addr", "0.0.0.0:0"}, evil: 200, app: 200},
		"open, all, a host":   {args: []string{"-addr", "0.0.0.0:0", "-host", "app.example"}, evil: 421, app: 200},
		"a key":               {env: map[string]string{"CHANNELS_API_KEYS": testKeys}, header: []string{"X-API-Key", testKey}, evil: 200, app: 200},
		"a key, with a host":  {args: []string{"-host", "app.example"}, env: map[string]string{"CHANNELS_API_KEYS": testKeys}, header: []string{"X-API-Key", testKey}, evil: 421, app: 200},
		"an origin, no host":  {args: []string{"-origin", "https://app.example"}, evil: 421, app: 421},
	} {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t, c.env, c.args...)
			addr = strings.Replace(addr, "[::]", "127.0.0.1", 1)
			require.Equal(t, c.evil, ask(addr, "evil.example:8080", c.header...))
			require.Equal(t, c.app, ask(addr, "app.example", c.header...))
			for _, host := range []string{addr, "localhost:8080", "a.localhost"} {
				require.Equal(t, 200, ask(addr, host, c.header...), host)
			}
		})
	}
}

// At the start the log says what is open without a token or key.
func TestServerSaysWhatIsOpen(t *testing.T) {
	for name, c := range map[string]struct {
		args      []string
		env       map[string]string
		says, not []string
	}{
		"on loopback":    {nil, nil, []string{"open to everyone on this machine", `"hosts":["localhost"]`}, []string{"WARN"}},
		"for all":        {[]string{"-addr", "0.0.0.0:0"}, nil, []string{`"level":"WARN","msg":"open to everyone: anyone who reaches`}, []string{"hosts"}},
		"with keys":      {nil, map[string]string{"CHANNELS_API_KEYS": testKeys}, nil, []string{"open to everyone", "WARN"}},
		"partly":         {[]string{"-anonymous", "news.*"}, map[string]string{"CHANNELS_API_KEYS": testKeys}, []string{"open to everyone without a token or key", `"subscribe":"news.*"`}, []string{"WARN"}},
		"every website":  {[]string{"-origin", "*"}, nil, []string{`WARN","msg":"-origin '*' lets pages of every website`}, nil},
		"a null origin":  {[]string{"-origin", "null"}, nil, []string{`WARN","msg":"-origin null`}, nil},
		"a named origin": {[]string{"-origin", "https://a.example"}, nil, nil, []string{"WARN"}},
	} {
		t.Run(name, func(t *testing.T) {
			addr, log := start(t, c.env, c.args...)
			get(t, strings.Replace(addr, "[::]", "127.0.0.1", 1), "/healthz") // the records are written before the server answers
			for _, s := range c.says {
				require.Contains(t, log.String(), s)
			}
			for _, s := range c.not {
				require.NotContains(t, log.String(), s)
			}
		})
	}
}

func TestTimesInTheLogCanBeRead(t *testing.T) {
	_, log := start(t, nil)
	newLog(log, 0).Info("a time", "took", 1500*time.Millisecond)
	require.Equal(t, "1.5s", log.wait(t, "a time")["took"])
}
