//go:build linux

package deploy

import (
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
)

// loadCompose reads the compose file as "docker compose" does, which checks it against
// the schema, and that each network and volume is there.
func loadCompose(t *testing.T, env types.Mapping) (*types.Project, error) {
	t.Helper()
	dir, err := filepath.Abs(".")
	require.NoError(t, err)
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yaml")}},
		Environment: env,
	})
}

func TestCompose(t *testing.T) {
	t.Parallel()
	_, err := loadCompose(t, types.Mapping{"ADMIN_TOKEN": "0123456789abcdef"})
	require.ErrorContains(t, err, "MESH_KEY is missing a value: write it into .env")
	p, err := loadCompose(t, types.Mapping{"MESH_KEY": "0123456789abcdef", "ADMIN_TOKEN": "fedcba9876543210"})
	require.NoError(t, err)
	app, err := p.GetService("app")
	require.NoError(t, err)
	require.Equal(t, 3, *app.Deploy.Replicas)
	require.FileExists(t, filepath.Join(app.Build.Context, app.Build.Dockerfile))
	f := readFlags(t, app.Command)
	require.Equal(t, "0123456789abcdef", *app.Environment["CHANNELS_MESH_KEY"])
	require.Equal(t, "fedcba9876543210", *app.Environment["CHANNELS_ADMIN_TOKEN"])
	var env []string
	for name, value := range app.Environment {
		env = append(env, name+"="+*value)
	}
	starts(t, app.Command, env...)
	require.GreaterOrEqual(t, time.Duration(*app.StopGracePeriod), f.end(t)+5*time.Second)
	below(t, f, *app.Environment["GOMEMLIMIT"], int64(app.MemLimit))
	require.True(t, app.ReadOnly)
	require.Empty(t, app.Secrets, "Compose refuses secrets from variables if the container is read-only")
	require.Equal(t, []string{"ALL"}, app.CapDrop)

	// What the flags name is there.
	require.Equal(t, p.Networks["front"].Ipam.Config[0].Subnet, f.one(t, "trusted-proxy"))
	require.Equal(t, []string{"mesh"}, app.Networks["back"].Aliases)
	require.Equal(t, "mesh:"+port(t, f.one(t, "mesh-listen")), f.one(t, "mesh-dns"))
	require.True(t, bool(p.Networks["back"].Internal))

	redis, err := p.GetService("redis")
	require.NoError(t, err)
	require.Equal(t, "redis://redis:6379/0", f.one(t, "redis"))
	require.NotContains(t, redis.Networks, "front")
	require.Contains(t, redis.Command, "noeviction")
	require.NotEmpty(t, redis.HealthCheck.Test)
	require.Equal(t, types.ServiceConditionHealthy, app.DependsOn["redis"].Condition)

	// Only this machine reaches nginx, which reaches nothing but the app.
	nginx, err := p.GetService("nginx")
	require.NoError(t, err)
	require.Equal(t, []types.ServicePortConfig{{Mode: "ingress", HostIP: "127.0.0.1", Target: 8080, Published: "8080", Protocol: "tcp"}}, nginx.Ports)
	require.Equal(t, map[string]*types.ServiceNetworkConfig{"front": nil}, map[string]*types.ServiceNetworkConfig(nginx.Networks))
	config := read(t, nginx.Volumes[0].Source)
	require.Contains(t, config, "listen 8080;")
	require.Contains(t, config, "set $app app:"+port(t, f.one(t, "addr"))+";")
	kept := regexp.MustCompile(`(?m)^    resolver 127\.0\.0\.11 valid=(\d+s);`).FindStringSubmatch(config)
	require.NotNil(t, kept, "Docker's own resolver")
	valid, err := time.ParseDuration(kept[1])
	require.NoError(t, err)
	delay, err := time.ParseDuration(f.one(t, "drain-delay"))
	require.NoError(t, err)
	require.Greater(t, delay, valid, "a worker that knows only replicas that drain answers 503")
}
