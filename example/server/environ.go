package main

import (
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// discovered matches the variables that Kubernetes sets for a Service whose
// name is, or begins with, "channels".
var discovered = regexp.MustCompile(`^CHANNELS_([A-Z0-9_]+_)?(SERVICE_HOST=|SERVICE_PORT(_[A-Z0-9_]+)?=|PORT=(tcp|udp|sctp)://|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=)`)

// misspelt refuses an unknown variable that begins with CHANNELS_. Otherwise
// its value would be ignored silently.
func misspelt(environ []string) error {
	known := []string{"CHANNELS_POLLER"} // the hub reads it itself
	for _, s := range secrets {
		known = append(known, variable(s.name))
	}
	var cfg config
	cfg.flags().VisitAll(func(f *flag.Flag) { known = append(known, variable(f.Name)) })
	for _, line := range environ {
		name, _, _ := strings.Cut(line, "=")
		if strings.HasPrefix(name, "CHANNELS_") && !discovered.MatchString(line) && !slices.Contains(known, name) {
			return fmt.Errorf("there is no variable %.60s: a variable is CHANNELS_ and the name of a flag%s", name, nearest(name, known))
		}
	}
	return nil
}

// nearest suggests the variable that was probably meant.
func nearest(name string, known []string) string {
	best := slices.MinFunc(known, func(a, b string) int { return edits(name, a) - edits(name, b) })
	if edits(name, best) > 3 { // another word
		return ""
	}
	return "; did you mean " + best + "?"
}

// edits returns how many letters must be changed, added or removed (Levenshtein
// distance).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			n := before
			if a[i] != b[j] {
				n = 1 + min(before, row[j], row[j+1])
			}
			before, row[j+1] = row[j+1], n
		}
	}
	return row[len(b)]
}
