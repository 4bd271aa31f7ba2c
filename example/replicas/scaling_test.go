package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/example/internal/webtest"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// supervised runs n replicas, without a balancer, until the test ends.
func supervised(t *testing.T, n int) *supervisor {
	t.Helper()
	config := replicaConfig{Supervisor: "http://127.0.0.1:1"}
	config.newSecrets()
	s, err := newSupervisor(config)
	require.NoError(t, err)
	t.Cleanup(s.stop)
	require.NoError(t, s.scale(n, nil))
	return s
}

// runs waits until exactly these replicas are there, all of them ready.
func runs(t *testing.T, s *supervisor, names ...string) {
	t.Helper()
	basetest.Eventually(t, fmt.Sprint("these are ready: ", names), func() bool {
		var all []string
		for _, one := range s.states() {
			if !one.Ready {
				return false
			}
			all = append(all, one.Node)
		}
		return fmt.Sprint(all) == fmt.Sprint(names)
	})
}

// Other programs of this machine are not let into the mesh.
func TestOnlyReplicasAreInTheMesh(t *testing.T) {
	t.Parallel()
	s := supervised(t, 1)
	runs(t, s, "replica-1")
	s.mu.Lock()
	address := s.all[0].at.Mesh
	s.mu.Unlock()
	outsider, err := zmqmesh.New(zmqmesh.Options{ReplicaID: "outsider", Listen: "tcp://127.0.0.1:0", Peers: []string{address}})
	require.NoError(t, err)
	defer outsider.Close()
	basetest.Eventually(t, "it is refused", func() bool {
		peers := outsider.Status().Peers
		return len(peers) == 1 && !peers[0].Up && peers[0].Err != ""
	})
}

// One that is not on the list any more is not started: nothing would end it.
func TestWhoIsForgottenStaysDead(t *testing.T) {
	t.Parallel()
	s := supervised(t, 1)
	r, err := s.number(1)
	require.NoError(t, err)
	require.NoError(t, s.kill(r))
	require.NoError(t, s.scale(1, nil))
	require.ErrorContains(t, s.launch(r), "replica-1 is not to run any more")
	require.Nil(t, r.process)
}

// Those with the fewest connections end first, and among equals the youngest. New
// replicas have new names, and replace those that have died.
func TestScalingEndsTheEmptiest(t *testing.T) {
	t.Parallel()
	s := supervised(t, 3)
	runs(t, s, "replica-1", "replica-2", "replica-3")
	require.NoError(t, s.scale(2, map[string]int{"replica-1": 5, "replica-2": 1, "replica-3": 5}))
	runs(t, s, "replica-1", "replica-3")

	r, err := s.number(1)
	require.NoError(t, err)
	require.NoError(t, s.kill(r))
	ready, wanted := s.counts()
	require.Equal(t, 2, wanted)
	require.Less(t, ready, 2)
	require.NoError(t, s.scale(2, nil))
	runs(t, s, "replica-3", "replica-4")

	require.NoError(t, s.scale(1, map[string]int{"replica-3": 2, "replica-4": 2}))
	runs(t, s, "replica-3")
	ready, wanted = s.counts()
	require.Equal(t, [2]int{1, 1}, [2]int{ready, wanted})
	for _, n := range []int{-1, 0, 10} {
		require.ErrorContains(t, s.scale(n, nil), "1 to 9")
	}
	s.stop()
	require.ErrorContains(t, s.scale(2, nil), "ending")
}

// A replica that ends tells its clients before it goes.
func TestScalingDrains(t *testing.T) {
	t.Parallel()
	s := supervised(t, 2)
	runs(t, s, "replica-1", "replica-2")
	s.mu.Lock()
	address := s.all[1].at.HTTP
	s.mu.Unlock()
	c := join(t, address)
	require.NoError(t, s.scale(1, map[string]int{"replica-1": 1}))
	told := false
	m, err := webtest.Next(c)
	for ; err == nil; m, err = webtest.Next(c) {
		told = told || m.Header == "reconnect"
	}
	require.True(t, told, "%v", err)
	runs(t, s, "replica-1")
}

// The scaler of a replica gives the supervisor orders, and nobody else can.
func TestOnlyReplicasGiveOrders(t *testing.T) {
	t.Parallel()
	s := supervised(t, 1)
	runs(t, s, "replica-1")
	server := httptest.NewServer(orders(s, "secret"))
	defer server.Close()
	hub := hubtest.NewHub(t, channels.Options{})
	sc := &scaler{hub, server.URL, "secret"}
	ready, wanted, err := sc.Replicas(t.Context())
	require.NoError(t, err)
	require.Equal(t, [2]int{1, 1}, [2]int{ready, wanted})
	require.NoError(t, sc.Scale(t.Context(), 2))
	runs(t, s, "replica-1", "replica-2")
	require.ErrorContains(t, sc.Scale(t.Context(), 10), "the supervisor refuses: cannot scale to 10")

	for _, header := range []string{"", "Bearer ", "Bearer secret2", "secret"} {
		require.Contains(t, wantStatus(t, http.StatusForbidden, "GET", server.URL+"/scale", "Authorization", header), "only the replicas")
		wantStatus(t, http.StatusForbidden, "POST", server.URL+"/scale", "Authorization", header)
	}
	for _, body := range []string{"", "[]", `{"wanted":"2"}`, `{"wanted":2,"connections":{"` + strings.Repeat("x", maxOrder) + `":1}}`} {
		webtest.Want(t, http.DefaultClient, http.StatusBadRequest, "POST", server.URL+"/scale", body, "Authorization", "Bearer secret")
	}
	_, wanted = s.counts()
	require.Equal(t, 2, wanted)

	lost := &scaler{hub, "http://" + basetest.Listen(t).Addr().String(), "secret"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = lost.Replicas(ctx)
	require.ErrorContains(t, err, "the supervisor does not answer")
	http.DefaultClient.CloseIdleConnections()
}

// The page's token, which people have in a link, is none of the replicas' secrets.
func TestEachPurposeHasItsSecret(t *testing.T) {
	var c replicaConfig
	c.newSecrets()
	all := []string{c.Token, c.MeshKey, c.ScaleToken}
	slices.Sort(all)
	require.Len(t, slices.Compact(all), 3)
	s, err := newSupervisor(c)
	require.NoError(t, err)
	t.Cleanup(s.stop)
	for token, want := range map[string]int{c.ScaleToken: http.StatusOK, c.Token: http.StatusForbidden, c.MeshKey: http.StatusForbidden, "": http.StatusForbidden} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/scale", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		orders(s, c.ScaleToken).ServeHTTP(w, r)
		require.Equal(t, want, w.Code)
	}
}

// The link on the page lets in whoever may press its switches, and nobody else.
func TestTheLinkToTheOperatorsPage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		remote, host, forwarded string // the last is a header
		here                    bool
	}{
		"this machine":            {"127.0.0.1:5000", "localhost:8080", "", true},
		"this machine, over IPv6": {"[::1]:5000", "[::1]:8080", "", true},
		"another one":             {"192.0.2.7:5000", "192.0.2.1:8080", "", false},
		"a name that points here": {"127.0.0.1:5000", "evil.example", "", false},
		"a lie about the host":    {"192.0.2.7:5000", "localhost", "", false},
		"through a proxy here":    {"127.0.0.1:5000", "127.0.0.1:8080", "X-Forwarded-For", false},
		"through a tunnel":        {"127.0.0.1:5000", "localhost:8080", "X-Forwarded-Host", false},
		"by the standard":         {"127.0.0.1:5000", "localhost:8080", "Forwarded", false},
	} {
		t.Run(name, func(t *testing.T) {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/operators", nil)
			r.RemoteAddr, r.Host = c.remote, c.host
			if c.forwarded != "" {
				r.Header.Set(c.forwarded, "203.0.113.9")
			}
			to, pressed := "/admin/", http.StatusForbidden
			if c.here {
				to, pressed = "/admin/#token=secret", http.StatusNoContent
			}
			operators("secret")(w, r)
			require.Equal(t, http.StatusSeeOther, w.Code)
			require.Equal(t, to, w.Header().Get("Location"))
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			w = httptest.NewRecorder()
			guarded(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }).ServeHTTP(w, r)
			require.Equal(t, pressed, w.Code, "the switches")
		})
	}
}

// The operators' page needs the token that the program prints, and scales.
func TestTheOperatorsPageScales(t *testing.T) {
	t.Parallel()
	out, in := io.Pipe()
	webtest.Run(t, func(ctx context.Context) error {
		defer in.Close()
		return run(ctx, "127.0.0.1:0", 1, replicaConfig{}, false, in)
	})
	b := make([]byte, 400)
	k, err := out.Read(b)
	require.NoError(t, err)
	_, link, ok := strings.Cut(string(b[:k]), "Its operators' page: ")
	require.True(t, ok)
	page, token, ok := strings.Cut(strings.TrimSpace(link), "#token=")
	require.True(t, ok)
	ready(t, addressIn(string(b[:k])), 1)

	require.Contains(t, wantStatus(t, http.StatusUnauthorized, "GET", page+"api/overview"), "no_session")
	bearer := []string{"Authorization", "Bearer " + token, "Content-Type", "application/json"}
	for _, n := range []int{2, 1} {
		webtest.Want(t, http.DefaultClient, http.StatusOK, "POST", page+"api/scale", fmt.Sprintf(`{"replicas":%d}`, n), bearer...)
		basetest.Eventually(t, "the page tells of them", func() bool {
			status, text := call(t, "GET", page+"api/overview", bearer...)
			var o struct {
				Replicas []struct{ Status string }
				Scaling  struct{ Ready, Wanted int }
			}
			require.Equal(t, http.StatusOK, status, text)
			require.NoError(t, json.Unmarshal([]byte(text), &o))
			return len(o.Replicas) == n && o.Scaling.Ready == n && o.Scaling.Wanted == n
		})
	}
	require.Contains(t, webtest.Want(t, http.DefaultClient, http.StatusBadRequest, "POST", page+"api/scale", `{"replicas":10}`, bearer...), "1 to 9")
	for _, host := range []string{"evil.example", "127.0.0.1.evil.example"} {
		wantStatus(t, http.StatusMisdirectedRequest, "GET", page, "Host", host)
	}
}
