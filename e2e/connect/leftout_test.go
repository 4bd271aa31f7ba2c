package connect

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// An omission is what the clients of some kinds do not run, and why.
type omission struct {
	kinds    string // a part of their names
	scenario string // empty: all
	why      string
}

var omissions = []omission{
	{"Go", "proxy that refuses upgrades", "its SDK knows WebSockets only"},
}

// impossible are the kinds that nobody can run.
var impossible = []omission{
	{"Go http_stream, Go sse", "", "its SDK knows WebSockets only"},
	{"Node sse", "", "Node has no EventSource unless a flag asks for it; see Chromium JSON sse"},
	{"Protobuf sse", "", "the SDK speaks only JSON over server-sent events"},
}

// leftOut reports whether the clients of a kind do not run a scenario.
func leftOut(k kind, scenario string) bool {
	return slices.ContainsFunc(omissions, func(o omission) bool {
		return strings.Contains(k.name, o.kinds) && (o.scenario == "" || o.scenario == scenario)
	})
}

// TestLeftOut tells what no client is tested with.
func TestLeftOut(t *testing.T) {
	var all []string
	for _, o := range slices.Concat(impossible, omissions) {
		all = append(all, fmt.Sprintf("%s, %s: %s", cmp.Or(o.kinds, "all"), cmp.Or(o.scenario, "all scenarios"), o.why))
	}
	t.Skip(strings.Join(all, "; "))
}
