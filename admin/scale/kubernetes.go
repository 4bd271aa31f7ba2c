package scale

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/channels-go/channels/admin"
)

// KubernetesOptions say what to scale. Only Name is required within a pod.
type KubernetesOptions struct {
	// Name is that of the Deployment or StatefulSet whose pods are the replicas.
	Name string
	// Kind is "Deployment", the default, or "StatefulSet".
	Kind string
	// Namespace is the pod's own by default.
	Namespace string
	// Server is the API server, such as https://10.96.0.1:443. The default is
	// what Kubernetes tells each pod in KUBERNETES_SERVICE_HOST and
	// KUBERNETES_SERVICE_PORT. The token is sent there, so it has to be https.
	Server string
	// Account is the folder of the service account, with the files token,
	// ca.crt and namespace. Default: where Kubernetes mounts it,
	// /var/run/secrets/kubernetes.io/serviceaccount.
	Account string
	// Timeout bounds each call, its repetitions included. Default: 10 s.
	Timeout time.Duration
}

// Kubernetes returns a Scaler for a Deployment or a StatefulSet. It speaks to
// the API server as the pod's service account, which needs a Role with two
// rules:
//
//	rules:
//	  - {apiGroups: [apps], resources: [deployments], resourceNames: [app], verbs: [get]}
//	  - {apiGroups: [apps], resources: [deployments/scale], resourceNames: [app], verbs: [patch]}
//
// The first is for Replicas: the scale subresource does not tell how many pods
// are ready, but the Deployment does. The second is for Scale. It allows to
// change the number and nothing else of the Deployment.
//
// Kubernetes itself chooses which pods end: those that are not ready first,
// then those on the nodes that have the most, then the youngest. (A StatefulSet
// ends those with the highest numbers.) They need not be the emptiest; to choose
// them, the pods' annotations would have to be changed, and a right to change
// pods is a right to run any image. Each pod drains when it gets SIGTERM.
//
// A HorizontalPodAutoscaler for the same Deployment sets the number again
// within seconds. Change its limits instead.
func Kubernetes(o KubernetesOptions) (admin.Scaler, error) {
	k := &kubernetes{name: o.Name, account: o.Account, timeout: o.Timeout}
	if k.account == "" {
		k.account = "/var/run/secrets/kubernetes.io/serviceaccount"
	}
	if k.timeout <= 0 {
		k.timeout = 10 * time.Second
	}
	switch o.Kind {
	case "", "Deployment":
		k.kind = "deployments"
	case "StatefulSet":
		k.kind = "statefulsets"
	default:
		return nil, fmt.Errorf("scale: Kind is %.100q; it must be Deployment or StatefulSet", o.Kind)
	}
	k.namespace = o.Namespace
	if k.namespace == "" {
		b, err := k.file("namespace")
		if err != nil {
			return nil, fmt.Errorf("scale: set Namespace: %w", err)
		}
		k.namespace = string(bytes.TrimSpace(b))
	}
	for what, name := range map[string]string{"Name": k.name, "Namespace": k.namespace} {
		if !objectName.MatchString(name) {
			return nil, fmt.Errorf("scale: %s is %.100q; Kubernetes' names have lower-case letters, digits, dots and hyphens", what, name)
		}
	}
	server := o.Server
	if server == "" {
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return nil, errors.New("scale: KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set: run in a pod, or set Server")
		}
		server = "https://" + net.JoinHostPort(host, port)
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return nil, errors.New("scale: Server must be like https://HOST:PORT")
	}
	k.url = u.JoinPath("apis/apps/v1/namespaces", k.namespace, k.kind, k.name).String()
	if _, _, err := k.credentials(); err != nil {
		return nil, fmt.Errorf("scale: %w", err)
	}
	return k, nil
}

var objectName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// kubernetes is a Scaler. Its methods may be called concurrently.
type kubernetes struct {
	kind, name, namespace string
	url                   string // of the Deployment
	account               string
	timeout               time.Duration

	mu     sync.Mutex   // guards the fields below
	ca     []byte       // what the client trusts
	client *http.Client // nil until the first call
}

func (k *kubernetes) Replicas(ctx context.Context) (ready, wanted int, err error) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	status, body, err := k.call(ctx, http.MethodGet, k.url, "")
	if err == nil && status != http.StatusOK {
		err = k.refused(status, body, "get", k.kind)
	}
	if err == nil {
		ready, wanted, err = parseWorkload(body)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("kubernetes: %w", err)
	}
	return ready, wanted, nil
}

func (k *kubernetes) Scale(ctx context.Context, n int) error {
	if n < 0 {
		return fmt.Errorf("kubernetes: cannot scale to %d; 0 is the least", n)
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	patch := fmt.Sprintf(`{"spec":{"replicas":%d}}`, n)
	for pause := firstPause; ; pause *= 2 {
		status, body, err := k.call(ctx, http.MethodPatch, k.url+"/scale", patch)
		switch {
		case err != nil:
			return fmt.Errorf("kubernetes: %w", err)
		case status == http.StatusOK:
			return nil
		// Somebody else has changed the Deployment at the same moment, or the
		// server is busy. The patch says all that is wanted, so it can be sent
		// again.
		case status == http.StatusConflict || status == http.StatusTooManyRequests:
			if sleep(ctx, pause) == nil {
				continue
			}
		}
		return fmt.Errorf("kubernetes: %w", k.refused(status, body, "patch", k.kind+"/scale"))
	}
}

// firstPause is how long Scale waits before it tries again; each further pause
// is twice as long.
const firstPause = 100 * time.Millisecond

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxAnswer bounds what is read of an answer. Kubernetes keeps no object above
// 1.5 MiB.
const maxAnswer = 3 << 20

// call makes a request and returns what is answered.
func (k *kubernetes) call(ctx context.Context, method, url, patch string) (status int, body []byte, err error) {
	token, client, err := k.credentials()
	if err != nil {
		return 0, nil, err
	}
	var content io.Reader
	if patch != "" {
		content = strings.NewReader(patch)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	if patch != "" {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("the API server does not answer: %w", err)
	}
	defer res.Body.Close()
	body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, fmt.Errorf("the API server's answer ended early: %w", err)
	}
	if len(body) > maxAnswer {
		return 0, nil, fmt.Errorf("the API server's answer has more than %d bytes", maxAnswer)
	}
	return res.StatusCode, body, nil
}

// credentials reads the token and the certificates anew for each call: the token
// is replaced every hour or so, and both are small files in memory. The client
// is the last call's unless the certificates have changed.
func (k *kubernetes) credentials() (token string, client *http.Client, err error) {
	b, err := k.file("token")
	if err != nil {
		return "", nil, err
	}
	token = string(bytes.TrimSpace(b))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", nil, fmt.Errorf("%s holds no token", filepath.Join(k.account, "token"))
	}
	ca, err := k.file("ca.crt")
	if err != nil {
		return "", nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client != nil && bytes.Equal(ca, k.ca) {
		return token, k.client, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return "", nil, fmt.Errorf("%s holds no certificate", filepath.Join(k.account, "ca.crt"))
	}
	if k.client != nil {
		k.client.CloseIdleConnections()
	}
	k.ca, k.client = ca, &http.Client{
		Transport: &http.Transport{ // with no proxy: the API server is in the cluster
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: 5 * time.Second,
			MaxIdleConns:        2,
			IdleConnTimeout:     30 * time.Second,
		},
		// Nothing else may get the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return token, k.client, nil
}

// file reads a file of the service account.
func (k *kubernetes) file(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(k.account, name))
	if err != nil {
		return nil, fmt.Errorf("no service account: %w; run in a pod with automountServiceAccountToken, or set Account", err)
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// maxFile bounds what is read of a file: a token has 1 KB, and a bundle of
// certificates some more.
const maxFile = 1 << 20

// refused explains an answer that is not the one that was hoped for.
func (k *kubernetes) refused(status int, body []byte, verb, resource string) error {
	said := parseRefusal(body)
	if said != "" {
		said = ": " + said
	}
	switch status {
	case http.StatusUnauthorized:
		return fmt.Errorf("the API server does not accept the service account's token%s", said)
	case http.StatusForbidden:
		return fmt.Errorf("the service account may not %s %s %q in namespace %q; its Role needs the rule {apiGroups: [apps], resources: [%s], verbs: [%s]}%s",
			verb, resource, k.name, k.namespace, resource, verb, said)
	case http.StatusNotFound:
		return fmt.Errorf("there is no %q among the %s of namespace %q; correct the name or the kind%s", k.name, k.kind, k.namespace, said)
	case http.StatusConflict:
		return fmt.Errorf("others change %q all the time; try again%s", k.name, said)
	case http.StatusTooManyRequests:
		return fmt.Errorf("the API server is too busy; try again%s", said)
	}
	return fmt.Errorf("the API server answers %d to %s %s%s", status, verb, resource, said)
}
