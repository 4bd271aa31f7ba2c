package e2e

import (
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ask makes a GET like a browser that was given this host.
func ask(t *testing.T, s *server, host, path string) (int, string) {
	t.Helper()
	r, err := http.NewRequest("GET", "http://"+s.addr+path, nil)
	require.NoError(t, err)
	if r.Host = host; host == "" {
		r.Host = s.addr
	}
	r.Close = true
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(body)
}

// A website that points its own name at this machine gets nothing from the
// examples, neither from the hub nor from their pages.
func TestExamplesAnswerToTheirOwnHosts(t *testing.T) {
	for name, s := range map[string]*server{
		"chat":              run(t, "Chat", binary, "-addr", "127.0.0.1:0", "-host", "chat.example"),
		"private-messaging": run(t, "Private messaging", messaging, "-addr", "127.0.0.1:0", "-host", "chat.example"),
		"replicas":          run(t, "Replicas", replicas, "-addr", "127.0.0.1:0", "-n", "1", "-host", "chat.example"),
	} {
		t.Run(name, func(t *testing.T) {
			require.Eventually(t, func() bool {
				status, _ := ask(t, s, "", "/readyz")
				return status == http.StatusOK
			}, deadline, 50*time.Millisecond)
			for _, path := range []string{"/", "/v1/nodes", "/channel/lobby/", "/replicas"} {
				status, body := ask(t, s, "evil.example:8080", path)
				require.Equal(t, http.StatusMisdirectedRequest, status, path)
				require.Contains(t, body, "evil.example:8080", path)
				for _, host := range []string{"", "localhost", "a.localhost:8080", "chat.example"} {
					status, _ = ask(t, s, host, path)
					require.NotEqual(t, http.StatusMisdirectedRequest, status, "%s of %s", path, host)
				}
			}
		})
	}
}

// Load balancers see that the end is coming while everything is still served.
func TestExamplesSayThatTheyEnd(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) *server{
		"chat":              func(t *testing.T) *server { return run(t, "Chat", binary, "-addr", "127.0.0.1:0") },
		"private-messaging": func(t *testing.T) *server { return run(t, "Private messaging", messaging, "-addr", "127.0.0.1:0") },
		"replicas":          func(t *testing.T) *server { return run(t, "Replicas", replicas, "-addr", "127.0.0.1:0", "-n", "1") },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			require.Eventually(t, func() bool {
				status, _ := ask(t, s, "", "/readyz")
				return status == http.StatusOK
			}, deadline, 50*time.Millisecond)
			require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
			// If the server has closed its port, the request fails, and so does
			// the test.
			require.Eventually(t, func() bool {
				status, _ := ask(t, s, "", "/readyz")
				return status == http.StatusServiceUnavailable
			}, deadline, 20*time.Millisecond)
			status, _ := ask(t, s, "", "/")
			require.Equal(t, http.StatusOK, status)
			select {
			case err := <-s.exited:
				require.NoError(t, err)
				s.exited <- nil // for the cleanup
			case <-time.After(deadline):
				require.Fail(t, "the server is still running")
			}
		})
	}
}
