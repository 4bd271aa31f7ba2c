package scale_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/admin/scale"
)

func TestNumbersOfACommand(t *testing.T) {
	for out, want := range map[string][2]int{
		"3": {3, 3}, "3\n": {3, 3}, "2 5": {2, 5}, "2/5\n": {2, 5}, " 0\r\n4 ": {0, 4}, "1000000": {1_000_000, 1_000_000},
	} {
		ready, wanted, err := scale.ParseNumbers(out)
		require.NoError(t, err, out)
		require.Equal(t, want, [2]int{ready, wanted}, out)
	}
	for _, out := range []string{"", "\n", "-1", "+1", "1 2 3", "3 replicas", "1.5", "0x1", "1000001", "1_0", "99999999999999999999"} {
		_, _, err := scale.ParseNumbers(out)
		require.ErrorContains(t, err, "one or two integers", out)
	}
}

func TestNumbersOfADeployment(t *testing.T) {
	for body, want := range map[string]string{
		`{"spec":{},"status":{}}`:                                    "no spec.replicas",
		`{"spec":{"replicas":null}}`:                                 "no spec.replicas",
		`{"spec":{"replicas":-1}}`:                                   "0 ready replicas of -1",
		`{"spec":{"replicas":2},"status":{"readyReplicas":1000001}}`: "1000001 ready",
		`{"spec":{"replicas":"2"}}`:                                  "not understood",
		`{"spec":{"replicas":2,"replicas":3}}`:                       "appears twice",
		`<html>`:                                                     "not understood",
	} {
		_, _, err := scale.ParseWorkload([]byte(body))
		require.ErrorContains(t, err, want, body)
	}
	_, _, err := scale.ParseWorkload([]byte(`{"spec":{"replicas":1` + strings.Repeat("0", 10_000) + `}}`))
	require.ErrorContains(t, err, "not understood")
	require.Less(t, len(err.Error()), 1000)
}

// FuzzKubernetesAnswer: whatever the API server answers gives numbers in bounds
// or an error, and a reason that is one short line.
func FuzzKubernetesAnswer(f *testing.F) {
	f.Add([]byte(`{"spec":{"replicas":3},"status":{"readyReplicas":2}}`))
	f.Add([]byte(`{"spec":{"replicas":3},"status":{"readyReplicas":-2}}`))
	f.Add([]byte("{\"kind\":\"Status\",\"message\":\"no\\n\\u001b[31mway\xff\"}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		ready, wanted, err := scale.ParseWorkload(body)
		if min(ready, wanted) < 0 || max(ready, wanted) > scale.MaxReplicas || err != nil && ready+wanted != 0 {
			t.Fatalf("%d of %d, %v", ready, wanted, err)
		}
		wantPlain(t, scale.ParseRefusal(body))
		if err != nil && len(err.Error()) > 1000 {
			t.Fatalf("the error is long: %d", len(err.Error()))
		}
	})
}

// FuzzCommandOutput: whatever a command prints gives numbers in bounds or an
// error that is one short line.
func FuzzCommandOutput(f *testing.F) {
	f.Add("3/5\n")
	f.Add("99999999999 1")
	f.Add("\x00\xff/\x1b[2J")
	f.Fuzz(func(t *testing.T, out string) {
		ready, wanted, err := scale.ParseNumbers(out)
		if min(ready, wanted) < 0 || max(ready, wanted) > scale.MaxReplicas {
			t.Fatalf("%d of %d", ready, wanted)
		}
		if err != nil {
			if ready+wanted != 0 {
				t.Fatalf("%d of %d, with an error", ready, wanted)
			}
			wantPlain(t, err.Error())
		}
	})
}

func wantPlain(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(text) > 1000 {
		t.Fatalf("%q", text)
	}
}
