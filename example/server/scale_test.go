package main

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin/scale"
)

// adminToken is the flag that a page needs, with \x01 for spaces.
func adminToken(t *testing.T) string {
	t.Helper()
	return "-admin-token-file " + strings.ReplaceAll(file(t, testSecret), " ", "\x01")
}

func TestScaleFlags(t *testing.T) {
	env := map[string]string{"CHANNELS_ADMIN_TOKEN": testSecret}
	cfg := parsed(t, env, "-admin-scale", "statefulset/app", "-admin-scale-min", "2", "-admin-scale-max", "20")
	require.Equal(t, scale.KubernetesOptions{Kind: "StatefulSet", Name: "app"}, cfg.scale)
	require.Equal(t, [2]int{2, 20}, [2]int{cfg.admin.ScaleMin, cfg.admin.ScaleMax})
	require.Equal(t, "Deployment", parsed(t, env, "-admin-scale", "deployment/app").scale.Kind)
	s, err := new(config).scaler()
	require.NoError(t, err)
	require.Nil(t, s, "none unless asked for")

	for _, wrong := range []string{"app", "deployment", "deployment/", "daemonset/app", "/app"} {
		wantRefused(t, env, []string{"-admin-scale", wrong}, "deployment/NAME or statefulset/NAME")
	}
	wantRefused(t, nil, []string{"-admin-scale", "deployment/app"}, "-admin-scale needs -admin-token-file")
	wantRefused(t, env, []string{"-admin-scale-min", "5", "-admin-scale-max", "3"}, "-admin-scale-min is 5 and -admin-scale-max is 3")
}

// Outside of Kubernetes, the service does not start with a page whose buttons fail.
func TestScaleOutsideOfKubernetes(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	cfg := parsed(t, map[string]string{"CHANNELS_ADMIN_TOKEN": testSecret}, "-admin-scale", "deployment/app")
	cfg.scale.Account = t.TempDir()
	_, _, err := withAdmin(nil, &cfg, &channels.Options{}, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "-admin-scale: scale: set Namespace: no service account")
}
