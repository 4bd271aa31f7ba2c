//go:build linux

package proxies

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/proctest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// kinds are the proxies that deploy/ has a file for.
var kinds = map[string]func(t *testing.T, p *proxy, app target){
	"nginx":   nginx,
	"caddy":   caddy,
	"haproxy": haproxy,
}

// A target is where a proxy finds the app.
type target struct {
	host, port string
	dns        string // the server that knows the host, if it is a name
}

func (a target) String() string { return net.JoinHostPort(a.host, a.port) }

// A proxy is one of them. It may be started several times.
type proxy struct {
	t      *testing.T
	argv   []string
	env    []string
	addr   string        // where clients connect
	dir    string        // for its files
	trust  func() bool   // makes tls, once the proxy runs; reports whether it could
	tls    *tls.Config   // nil without TLS
	cuts   bool          // connections that are silent
	reload func()        // has the running proxy read its configuration again
	log    *basetest.Log // what it has written

	process *proctest.Process
}

// start starts a proxy before an app. It ends with the test.
func start(t *testing.T, kind string, app target) *proxy {
	t.Helper()
	return startAs(t, kinds[kind], app)
}

// startAs starts a proxy that is configured in some other way.
func startAs(t *testing.T, configure func(t *testing.T, p *proxy, app target), app target) *proxy {
	t.Helper()
	p := &proxy{t: t, dir: t.TempDir(), addr: fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t)), log: &basetest.Log{}}
	configure(t, p, app)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s wrote:\n%s", p.argv[0], p.log)
		}
	})
	p.run()
	return p
}

// run starts the process, and waits until it listens.
func (p *proxy) run() {
	p.t.Helper()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, p.log, p.log
	p.process = proctest.Run(p.t, cmd)
	p.t.Cleanup(p.stop) // before the process is killed, which would leave its workers
	basetest.Eventually(p.t, p.argv[0]+" listens", func() bool {
		require.False(p.t, p.process.Ended(), "%s has ended:\n%s", p.argv[0], p.log)
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			return false
		}
		c.Close()
		return p.trust == nil || p.trust()
	})
}

// stop ends the process with all its connections.
func (p *proxy) stop() {
	if !p.process.Ended() {
		p.process.Signal(syscall.SIGTERM)
		basetest.Eventually(p.t, p.argv[0]+" ends", p.process.Ended)
	}
}

// idle is what a timeout of 60 s becomes, and pingPeriod is instead of 25 s. So a busy
// machine may be late by 7 s before a connection is cut.
const (
	idle       = "12s"
	pingPeriod = 5 * time.Second
)

// configure writes a file of deploy/ to the proxy's folder, with changes: each is a text
// that the file has to have, and what takes its place.
func (p *proxy) configure(name string, changes ...string) (path string) {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join("../../deploy", name))
	require.NoError(p.t, err)
	text := string(b)
	p.cuts = strings.Contains(text, " 60s")
	text = strings.ReplaceAll(text, " 60s", " "+idle)
	for i := 0; i < len(changes); i += 2 {
		require.Equal(p.t, 1, strings.Count(text, changes[i]), "%s: %q", name, changes[i])
		text = strings.Replace(text, changes[i], changes[i+1], 1)
	}
	path = filepath.Join(p.dir, name)
	require.NoError(p.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func nginx(t *testing.T, p *proxy, app target) {
	path := p.configure("nginx.conf",
		"worker_processes auto;", "worker_processes 1;", // each looks names up for itself, and so learns of a replica at another time
		"listen 8080;", "listen "+p.addr+";",
		"set $app app:8080;", "set $app "+app.String()+";",
		"resolver 127.0.0.11 ", "resolver "+cmp.Or(app.dns, "127.0.0.11")+" ",
		"\nhttp {\n", "\nhttp {\n"+nginxFolders(p)+"\n")
	p.argv = nginxCommand(p, path)
	p.reload = func() {
		p.process.Signal(syscall.SIGHUP)
		basetest.Eventually(t, "nginx ends its old workers", func() bool { return p.log.Has("gracefully shutting down") })
	}
}

// nginxFolders has nginx write to the proxy's folder only.
func nginxFolders(p *proxy) string {
	return "client_body_temp_path " + p.dir + "/body; proxy_temp_path " + p.dir + "/proxy; fastcgi_temp_path " + p.dir + "/f; uwsgi_temp_path " + p.dir + "/u; scgi_temp_path " + p.dir + "/s;"
}

func nginxCommand(p *proxy, path string) []string {
	return []string{"nginx", "-p", p.dir, "-c", path, "-g", "daemon off; error_log stderr notice; pid " + p.dir + "/pid;"}
}

func haproxy(t *testing.T, p *proxy, app target) {
	servers := "parse-resolv-conf"
	if app.dns != "" {
		servers = "nameserver dns " + app.dns
	}
	path := p.configure("haproxy.cfg",
		"bind :8080", "bind "+p.addr,
		"app 10 app:8080", "app 10 "+app.String(),
		"parse-resolv-conf", servers)
	p.argv = []string{"haproxy", "-W", "-db", "-f", path}
	p.reload = func() {
		p.process.Signal(syscall.SIGUSR2)
		basetest.Eventually(t, "haproxy has a new worker", func() bool { return p.log.Count("Loading success") == 2 })
	}
}

// caddy ends TLS, as it does by default. Its certificate is of its own authority, since
// no other knows this machine.
func caddy(t *testing.T, p *proxy, app target) {
	_, port, err := net.SplitHostPort(p.addr)
	require.NoError(t, err)
	servers := ""
	if app.dns != "" {
		servers = "\nresolvers udp/" + app.dns
	}
	admin := "unix/" + p.dir + "/admin"
	path := p.configure("Caddyfile",
		"\n{\n", "\n{\nadmin "+admin+"\ndefault_bind 127.0.0.1\nlocal_certs\nskip_install_trust\nauto_https disable_redirects\nstorage file_system "+p.dir+"/data\n",
		"\n"+site+" {", "\n"+site+":"+port+" {",
		"grace_period 10s", "grace_period 1s",
		"dynamic a app 8080 {", "dynamic a "+app.host+" "+app.port+" {"+servers)
	p.argv = []string{"caddy", "run", "--config", path, "--adapter", "caddyfile"}
	p.env = []string{"HOME=" + p.dir, "XDG_DATA_HOME=" + p.dir, "XDG_CONFIG_HOME=" + p.dir}
	p.reload = func() {
		cmd := exec.Command("caddy", "reload", "--force", "--config", path, "--adapter", "caddyfile", "--address", admin)
		cmd.Env = append(os.Environ(), p.env...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	p.trust = func() bool {
		pem, err := os.ReadFile(p.dir + "/data/pki/authorities/local/root.crt")
		if err != nil {
			return false
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		p.tls = &tls.Config{RootCAs: roots, ServerName: site}
		c, err := tls.Dial("tcp", p.addr, p.tls)
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
}
