package e2e

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ask makes a GET like a browser that was given this host, on a connection of
// its own.
func (s *server) ask(host, path string) (int, string) {
	s.t.Helper()
	status, body := request(s.t, alone, "GET", s.home()+path, host, "")
	return status, string(body)
}

var alone = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// ready waits until the server answers that it is ready, or not.
func (s *server) ready(status int) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		now, _ := s.ask("", "readyz")
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
		for _, path := range []string{"", "v1/nodes", "channel/lobby/", "replicas"} {
			status, body := s.ask("evil.example:8080", path)
			require.Equal(t, http.StatusMisdirectedRequest, status, path)
			require.Contains(t, body, "evil.example:8080", path)
			for _, host := range []string{"", "localhost", "a.localhost:8080", "chat.example"} {
				status, _ = s.ask(host, path)
				require.NotEqual(t, http.StatusMisdirectedRequest, status, "%s of %s", path, host)
			}
		}
	})
}

// Load balancers see that the end is coming while everything is still served.
func TestExamplesSayThatTheyEnd(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.Signal(syscall.SIGTERM)
		// If the server has closed its port, the request fails, and so does
		// the test.
		s.ready(http.StatusServiceUnavailable)
		status, _ := s.ask("", "")
		require.Equal(t, http.StatusOK, status)
		s.WaitExit()
	})
}
