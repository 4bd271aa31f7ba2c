package scale_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/admin/scale"
	"github.com/channels-go/channels/internal/certtest"
)

// cluster is a server that speaks the part of Kubernetes' API that scales the
// Deployment "app" in the namespace "shop".
type cluster struct {
	t       *testing.T
	url     string
	account string // the folder of the service account
	trusted *certtest.Authority

	mu            sync.Mutex // guards the fields below
	token         string     // the only one that it accepts
	may           map[string]bool
	ready, wanted int
	failing       []int                                    // the statuses of the next PATCHes
	patches       int                                      // all of them
	instead       func(http.ResponseWriter, *http.Request) // answers everything if it is set
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, account: t.TempDir(), trusted: certtest.NewAuthority(), ready: 3, wanted: 3,
		may: map[string]bool{"get deployments": true, "patch deployments/scale": true, "get statefulsets": true, "patch statefulsets/scale": true}}
	server := httptest.NewUnstartedServer(c)
	server.TLS = c.trusted.Config("127.0.0.1")
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	c.url = server.URL
	c.rotate("first")
	c.trust(c.trusted)
	c.write("namespace", "shop\n")
	return c
}

// rotate replaces the token, as the kubelet does before the last one expires.
func (c *cluster) rotate(token string) {
	c.t.Helper()
	c.mu.Lock()
	c.token = token
	c.mu.Unlock()
	c.write("token", token)
}

// trust makes the service account trust another authority.
func (c *cluster) trust(a *certtest.Authority) {
	c.t.Helper()
	b, err := os.ReadFile(a.CAFile(c.t.TempDir()))
	require.NoError(c.t, err)
	c.write("ca.crt", string(b))
}

func (c *cluster) write(name, content string) {
	c.t.Helper()
	require.NoError(c.t, os.WriteFile(filepath.Join(c.account, name), []byte(content), 0o600))
}

// set changes the cluster.
func (c *cluster) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func (c *cluster) scaler(o scale.KubernetesOptions) admin.Scaler {
	c.t.Helper()
	o.Server, o.Account = c.url, c.account
	if o.Name == "" {
		o.Name = "app"
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	s, err := scale.Kubernetes(o)
	require.NoError(c.t, err)
	return s
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.instead != nil {
		c.mu.Unlock()
		defer c.mu.Lock()
		c.instead(w, r)
		return
	}
	refuse := func(status int, reason, message string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":%q,"reason":%q,"code":%d}`, message, reason, status)
	}
	if r.Header.Get("Authorization") != "Bearer "+c.token {
		refuse(http.StatusUnauthorized, "Unauthorized", "Unauthorized")
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/apis/apps/v1/namespaces/shop/")
	kind, rest, _ := strings.Cut(rest, "/")
	name, sub, _ := strings.Cut(rest, "/")
	if !ok || kind != "deployments" && kind != "statefulsets" || sub != "" && sub != "scale" {
		refuse(http.StatusNotFound, "NotFound", "the server could not find the requested resource")
		return
	}
	resource := kind
	if sub != "" {
		resource += "/" + sub
	}
	verb := strings.ToLower(r.Method)
	switch {
	case !c.may[verb+" "+resource]:
		refuse(http.StatusForbidden, "Forbidden", fmt.Sprintf(`%s.apps %q is forbidden: User "system:serviceaccount:shop:default" cannot %s resource %q`, kind, name, verb, resource))
	case name != "app":
		refuse(http.StatusNotFound, "NotFound", fmt.Sprintf(`%s.apps %q not found`, kind, name))
	case verb == "get" && sub == "":
		ready := ""
		if c.ready > 0 { // Kubernetes leaves a 0 out
			ready = fmt.Sprintf(`"readyReplicas":%d,`, c.ready)
		}
		fmt.Fprintf(w, `{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"app"},"spec":{"replicas":%d,"template":{}},"status":{"observedGeneration":4,%s"replicas":%d}}`, c.wanted, ready, c.wanted)
	case verb == "patch" && sub == "scale":
		if c.patches++; r.Header.Get("Content-Type") != "application/merge-patch+json" {
			refuse(http.StatusUnsupportedMediaType, "UnsupportedMediaType", "the body of the request was in an unknown format")
			return
		}
		if len(c.failing) > 0 {
			status := c.failing[0]
			c.failing = c.failing[1:]
			refuse(status, http.StatusText(status), "please apply your changes to the latest version and try again")
			return
		}
		body, _ := io.ReadAll(r.Body)
		if _, err := fmt.Sscanf(string(body), `{"spec":{"replicas":%d}}`, &c.wanted); err != nil {
			refuse(http.StatusBadRequest, "BadRequest", err.Error())
			return
		}
		fmt.Fprintf(w, `{"kind":"Scale","apiVersion":"autoscaling/v1","spec":{"replicas":%d},"status":{"replicas":%d}}`, c.wanted, c.ready)
	default:
		refuse(http.StatusMethodNotAllowed, "MethodNotAllowed", "the server does not allow this method on the requested resource")
	}
}

// wantReplicas checks what a scaler says.
func wantReplicas(t *testing.T, s admin.Scaler, ready, wanted int) {
	t.Helper()
	r, w, err := s.Replicas(t.Context())
	require.NoError(t, err)
	require.Equal(t, [2]int{ready, wanted}, [2]int{r, w})
}

func TestKubernetesScales(t *testing.T) {
	for _, kind := range []string{"", "Deployment", "StatefulSet"} {
		t.Run("kind "+kind, func(t *testing.T) {
			c := newCluster(t)
			s := c.scaler(scale.KubernetesOptions{Kind: kind})
			wantReplicas(t, s, 3, 3)
			require.NoError(t, s.Scale(t.Context(), 5))
			wantReplicas(t, s, 3, 5)
			require.NoError(t, s.Scale(t.Context(), 0))
			c.set(func() { c.ready = 0 })
			wantReplicas(t, s, 0, 0)
			require.ErrorContains(t, s.Scale(t.Context(), -1), "0 is the least")
			c.set(func() { require.Equal(t, 2, c.patches) })
		})
	}
}

// In a pod, the address of the server comes from the environment, and IPv6 has
// brackets.
func TestKubernetesFindsItsServer(t *testing.T) {
	c := newCluster(t)
	u, err := url.Parse(c.url)
	require.NoError(t, err)
	t.Setenv("KUBERNETES_SERVICE_HOST", u.Hostname())
	t.Setenv("KUBERNETES_SERVICE_PORT", u.Port())
	s, err := scale.Kubernetes(scale.KubernetesOptions{Name: "app", Account: c.account})
	require.NoError(t, err)
	wantReplicas(t, s, 3, 3)

	t.Setenv("KUBERNETES_SERVICE_HOST", "::1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "1")
	s, err = scale.Kubernetes(scale.KubernetesOptions{Name: "app", Account: c.account})
	require.NoError(t, err)
	_, _, err = s.Replicas(t.Context())
	require.ErrorContains(t, err, "https://[::1]:1/apis/apps/v1/namespaces/shop/deployments/app")

	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	_, err = scale.Kubernetes(scale.KubernetesOptions{Name: "app", Account: c.account})
	require.ErrorContains(t, err, "run in a pod, or set Server")
}

// An error says which rule or which file is missing.
func TestKubernetesSaysWhatIsMissing(t *testing.T) {
	c := newCluster(t)
	s := c.scaler(scale.KubernetesOptions{})
	both := func(want string) {
		t.Helper()
		_, _, err := s.Replicas(t.Context())
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, s.Scale(t.Context(), 4), want)
	}
	c.set(func() { c.may = nil })
	_, _, err := s.Replicas(t.Context())
	require.ErrorContains(t, err, `{apiGroups: [apps], resources: [deployments], verbs: [get]}`)
	require.ErrorContains(t, err, "system:serviceaccount:shop:default")
	require.ErrorContains(t, s.Scale(t.Context(), 4), `{apiGroups: [apps], resources: [deployments/scale], verbs: [patch]}`)

	c.set(func() { c.token = "another" })
	both("does not accept the service account's token")

	answers := map[string]http.HandlerFunc{
		`the API server answers 500`:  func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oh", http.StatusInternalServerError) },
		`the API server answers 302`:  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		`has more than 3145728 bytes`: func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, scale.MaxAnswer+1)) },
		`ended early`: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "{")
		},
	}
	for want, answer := range answers {
		c.set(func() { c.instead = answer })
		both(want)
	}
	c.set(func() { c.instead = nil })

	missing := c.scaler(scale.KubernetesOptions{Name: "other"})
	c.set(func() {
		c.token, c.may = "first", map[string]bool{"get deployments": true, "patch deployments/scale": true}
	})
	_, _, err = missing.Replicas(t.Context())
	require.ErrorContains(t, err, `there is no "other" among the deployments of namespace "shop"`)

	for file, want := range map[string]string{"token": "holds no token", "ca.crt": "holds no certificate"} {
		before, err := os.ReadFile(filepath.Join(c.account, file))
		require.NoError(t, err)
		c.write(file, "\n")
		both(want)
		require.NoError(t, os.Remove(filepath.Join(c.account, file)))
		both("automountServiceAccountToken")
		c.write(file, string(before))
	}
	wantReplicas(t, s, 3, 3)
}

// When others change the Deployment at the same moment, or the server is busy,
// Scale tries again as long as it may.
func TestKubernetesRepeatsAfterAConflict(t *testing.T) {
	c := newCluster(t)
	c.set(func() { c.failing = []int{http.StatusConflict, http.StatusTooManyRequests} })
	require.NoError(t, c.scaler(scale.KubernetesOptions{}).Scale(t.Context(), 7))
	c.set(func() {
		require.Equal(t, [2]int{3, 7}, [2]int{c.patches, c.wanted})
		c.failing = slices.Repeat([]int{http.StatusConflict}, 100)
	})
	require.Error(t, c.scaler(scale.KubernetesOptions{Timeout: 250 * time.Millisecond}).Scale(t.Context(), 9))
	c.set(func() { require.Equal(t, 7, c.wanted) })
}

// A slow server is waited for until the caller's context ends, or Timeout.
func TestKubernetesDoesNotWaitForASlowServer(t *testing.T) {
	c := newCluster(t)
	asked := make(chan struct{}, 8)
	c.instead = func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // otherwise the server does not notice that the client goes
		asked <- struct{}{}
		<-r.Context().Done()
	}
	s := c.scaler(scale.KubernetesOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	_, _, err := s.Replicas(ctx)
	require.ErrorIs(t, err, context.Canceled)
	ctx, cancel = context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	require.ErrorIs(t, s.Scale(ctx, 1), context.Canceled)

	s = c.scaler(scale.KubernetesOptions{Timeout: 10 * time.Millisecond})
	_, _, err = s.Replicas(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, s.Scale(t.Context(), 1), context.DeadlineExceeded)
}

// Kubernetes replaces the token every hour, and the certificates some day.
func TestKubernetesReadsWhatHasChanged(t *testing.T) {
	c := newCluster(t)
	s := c.scaler(scale.KubernetesOptions{})
	wantReplicas(t, s, 3, 3)
	c.rotate("second")
	wantReplicas(t, s, 3, 3)
	require.NoError(t, s.Scale(t.Context(), 4))

	c.trust(certtest.NewAuthority())
	_, _, err := s.Replicas(t.Context())
	require.ErrorContains(t, err, "certificate")
	c.trust(c.trusted)
	wantReplicas(t, s, 3, 4)
}

func TestKubernetesMayBeCalledConcurrently(t *testing.T) {
	c := newCluster(t)
	s := c.scaler(scale.KubernetesOptions{})
	var calls sync.WaitGroup
	for n := range 8 {
		calls.Go(func() {
			if err := s.Scale(t.Context(), n); err != nil {
				t.Error(err)
			}
			if _, _, err := s.Replicas(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	c.set(func() { require.Equal(t, 8, c.patches) })
}

func TestKubernetesRefusesOptions(t *testing.T) {
	c := newCluster(t)
	good := scale.KubernetesOptions{Name: "app", Server: c.url, Account: c.account}
	for want, change := range map[string]func(*scale.KubernetesOptions){
		"Deployment or StatefulSet":    func(o *scale.KubernetesOptions) { o.Kind = "DaemonSet" },
		"Name is":                      func(o *scale.KubernetesOptions) { o.Name = "" },
		`Name is "../secrets/a"`:       func(o *scale.KubernetesOptions) { o.Name = "../secrets/a" },
		"Namespace is":                 func(o *scale.KubernetesOptions) { o.Namespace = "A" },
		"Server must be like https://": func(o *scale.KubernetesOptions) { o.Server = "http://127.0.0.1:1" },
		"set Namespace: ":              func(o *scale.KubernetesOptions) { o.Account = t.TempDir() },
		"no service account":           func(o *scale.KubernetesOptions) { o.Account, o.Namespace = t.TempDir(), "shop" },
	} {
		o := good
		change(&o)
		_, err := scale.Kubernetes(o)
		require.ErrorContains(t, err, want)
	}
	_, err := scale.Kubernetes(good)
	require.NoError(t, err)
}
