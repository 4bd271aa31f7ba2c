package connect

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// An omission is a scenario that the clients of some kinds do not run, and why.
type omission struct {
	kinds    string // a part of their names
	scenario string
	why      string
}

var omissions = []omission{
	{"Go", "proxy that refuses upgrades", "its SDK knows WebSockets only"},
}

// missing are the kinds that there are not.
var missing = []omission{
	{"Go http_stream, Go sse", "", "its SDK knows WebSockets only"},
	{"Node sse", "", "Node has an EventSource only behind a flag, and Chromium has the same SDK with one"},
	{"Protobuf sse", "", "the SDK speaks only JSON over server-sent events"},
}

// of reports whether the omission is about a kind and a scenario.
func (o omission) of(k kind, scenario string) bool {
	return strings.Contains(k.name, o.kinds) && o.scenario == scenario
}

// leftOut reports whether the clients of a kind do not run a scenario.
func leftOut(k kind, scenario string) bool {
	return slices.ContainsFunc(omissions, func(o omission) bool { return o.of(k, scenario) })
}

// TestLeftOut tells what no client is tested with.
func TestLeftOut(t *testing.T) {
	for _, o := range omissions {
		require.True(t, slices.ContainsFunc(kinds, func(k kind) bool {
			return slices.ContainsFunc(scenarios, func(s scenario) bool { return o.of(k, s.name) })
		}), "nothing is left out by %v", o)
	}
	var all []string
	for _, o := range slices.Concat(omissions, missing) {
		all = append(all, fmt.Sprintf("%s, %s: %s", o.kinds, cmp.Or(o.scenario, "all scenarios"), o.why))
	}
	t.Skip(strings.Join(all, "; "))
}
