package metrics_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// deployed is where the alerts and the dashboard are.
const deployed = "../deploy/"

func readDeployed(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(deployed + name)
	require.NoError(t, err)
	return string(b)
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.Command("promtool", args...).CombinedOutput()
	require.NoError(t, err, "promtool %s\n%s", strings.Join(args, " "), out)
}

var metricName = regexp.MustCompile(`\bchannels_\w+`)

// wantMetrics wants expressions to name metrics that there are, and returns their names.
func wantMetrics(t *testing.T, exprs ...string) (used []string) {
	t.Helper()
	known := names(t)
	for _, expr := range exprs {
		found := metricName.FindAllString(expr, -1)
		require.NotEmpty(t, found, expr)
		for _, name := range found {
			name = strings.TrimSuffix(name, "_bucket")
			require.Contains(t, known, name, expr)
			used = append(used, name)
		}
	}
	return used
}

// Prometheus takes what docs/metrics.md configures, and finds the replicas' port.
func TestScrapeConfig(t *testing.T) {
	doc, err := os.ReadFile("../docs/metrics.md")
	require.NoError(t, err)
	_, config, _ := strings.Cut(string(doc), "```yaml\n")
	config, _, ok := strings.Cut(config, "```")
	require.True(t, ok)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yaml"), []byte(config), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "alerts.yaml"), []byte(readDeployed(t, "alerts.yaml")), 0o600))
	promtool(t, "check", "config", filepath.Join(dir, "prometheus.yaml"))

	port := regexp.MustCompile(`port: (\d+)`).FindStringSubmatch(config)
	require.NotNil(t, port)
	require.Contains(t, readDeployed(t, "kubernetes/deployment.yaml"), "-metrics=:"+port[1]+"\n")
	require.Contains(t, readDeployed(t, "compose.yaml"), "-metrics=:"+port[1]+"\n")
}

func TestAlerts(t *testing.T) {
	promtool(t, "check", "rules", deployed+"alerts.yaml")
	promtool(t, "test", "rules", deployed+"alerts_test.yaml")
	alerts := strings.Split(readDeployed(t, "alerts.yaml"), "      - alert: ")[1:]
	require.NotEmpty(t, alerts)
	tests := readDeployed(t, "alerts_test.yaml")
	for _, alert := range alerts {
		name, _, _ := strings.Cut(alert, "\n")
		t.Run(name, func(t *testing.T) {
			expr := regexp.MustCompile(`(?m)^        expr: (.+)$`).FindStringSubmatch(alert)
			require.NotNil(t, expr)
			wantMetrics(t, expr[1])
			require.Regexp(t, `(?m)^        labels: \{severity: (warning|critical)\}$`, alert)
			require.Regexp(t, `(?m)^          summary: \S`, alert)
			require.Regexp(t, `(?m)^          advice: \S.{30,}$`, alert)
			require.Contains(t, tests, "alertname: "+name+"}\n", "it is not tested when it should not fire")
			require.Contains(t, tests, "alertname: "+name+"\n        exp_alerts:", "it is not tested when it should fire")
		})
	}
}

// The dashboard shows every metric, and each query is one that Prometheus understands.
func TestDashboard(t *testing.T) {
	type target struct{ Expr string }
	var d struct {
		Title  string
		Panels []struct {
			ID          int
			Type, Title string
			Description string
			GridPos     struct{ H, W, X, Y int }
			Targets     []target
		}
		Annotations struct{ List []target }
		Templating  struct {
			List []struct {
				Type  string
				Query json.RawMessage
			}
		}
	}
	text := readDeployed(t, "grafana-dashboard.json")
	require.NoError(t, json.Unmarshal([]byte(text), &d))
	var exprs []string
	ids := map[int]bool{}
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], "two panels have the id %d", p.ID)
		ids[p.ID] = true
		require.True(t, p.GridPos.W > 0 && p.GridPos.X+p.GridPos.W <= 24, p.Title)
		if p.Type == "row" {
			continue
		}
		require.NotEmpty(t, p.Description, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		exprs = append(exprs, a.Expr)
	}
	used := wantMetrics(t, exprs...)
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			wantMetrics(t, string(v.Query))
		}
	}
	slices.Sort(used)
	var unused []string
	for _, name := range names(t) {
		if !slices.Contains(used, name) {
			unused = append(unused, name)
		}
	}
	require.Equal(t, []string{"channels_canaries_sent_total", "channels_pattern_channels", "channels_pattern_deliveries_total"}, unused)

	var rules bytes.Buffer
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	for _, expr := range exprs {
		quoted, err := json.Marshal(strings.ReplaceAll(expr, "$__rate_interval", "1m")) // JSON is YAML
		require.NoError(t, err)
		rules.WriteString("      - {record: a, expr: " + string(quoted) + ", labels: {n: " + string(quoted) + "}}\n")
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	require.NoError(t, os.WriteFile(file, rules.Bytes(), 0o600))
	promtool(t, "check", "rules", file)
}
