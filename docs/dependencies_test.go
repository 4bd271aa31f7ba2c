package docs_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// dependencies are the packages that a program gets which imports this one.
func dependencies(t *testing.T, path string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", path)
	cmd.Dir = root
	out, err := cmd.Output()
	require.NoError(t, err)
	return strings.Fields(string(out))
}

// Who imports a package gets what it needs, and not what the others need.
func TestPackagesDependOnLittle(t *testing.T) {
	redis, zeromq := "github.com/redis/go-redis", "github.com/go-zeromq/zmq4"
	prometheus, otel, tests := "github.com/prometheus/", "go.opentelemetry.io/otel", "github.com/stretchr/testify"
	for path, without := range map[string][]string{
		".":                  {redis, zeromq, prometheus, otel, tests, "github.com/golang-jwt/jwt"},
		"./middleware":       {redis, zeromq, prometheus, otel, tests},
		"./tracing":          {redis, zeromq, prometheus, tests, otel + "/sdk", otel + "/exporters"},
		"./metrics":          {redis, zeromq, otel, tests},
		"./mesh/zmqmesh":     {redis, prometheus, otel, tests},
		"./mesh/redismesh":   {zeromq, prometheus, otel, tests},
		"./store/redisstore": {zeromq, prometheus, otel, tests},
	} {
		all := dependencies(t, path)
		require.Contains(t, all, "context")
		for _, module := range without {
			for _, p := range all {
				require.False(t, strings.HasPrefix(p, module), "%s depends on %s", path, p)
			}
		}
	}
	require.Contains(t, dependencies(t, "./tracing"), otel+"/trace", "the names above are those of packages")
}
