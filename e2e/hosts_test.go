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

// ready waits until the server answers that it is ready, or not.
func (s *server) ready(status int) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		now, _ := ask(s.t, s, "", "/readyz")
		return now == status
	}, deadline, 20*time.Millisecond)
}

// each runs a test with each example, with only one replica.
func each(t *testing.T, args []string, test func(t *testing.T, s *server)) {
	t.Parallel()
	for name := range examples {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := args
			if name == "replicas" {
				args = append([]string{"-n", "1"}, args...)
			}
			s := run(t, name, args...)
			s.ready(http.StatusOK)
			test(t, s)
		})
	}
}

// A website that points its own name at this machine gets nothing from the
// examples, neither from the hub nor from their pages.
func TestExamplesAnswerToTheirOwnHosts(t *testing.T) {
	each(t, []string{"-host", "chat.example"}, func(t *testing.T, s *server) {
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

// Load balancers see that the end is coming while everything is still served.
func TestExamplesSayThatTheyEnd(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
		// If the server has closed its port, the request fails, and so does
		// the test.
		s.ready(http.StatusServiceUnavailable)
		status, _ := ask(t, s, "", "/")
		require.Equal(t, http.StatusOK, status)
		require.NoError(t, s.end())
	})
}
