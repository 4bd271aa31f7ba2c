// Package js has the client for JavaScript: the file of the npm package beside it. A hub
// serves it to pages; see [github.com/channels-go/channels.ScriptPath].
package js

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
)

//go:embed channels.js
var source string

// Types are the module's types, for TypeScript and editors.
//
//go:embed channels.d.ts
var Types string

// Module returns the module as pages get it: without comments, and without spaces and
// semicolons that mean nothing, on one line for each member of a class, and with short names for what is
// private. So the source can be written to be read.
func Module() string {
	var b strings.Builder
	for line := range strings.Lines(source) {
		line, _, _ = strings.Cut(line, "// ") // which no text in the source has in it
		code := strings.TrimSpace(line)
		if code == "" || code == "//" {
			continue
		}
		if inner := strings.HasPrefix(line, "   ") || code[0] == '}'; !inner && b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(dense(code))
	}
	b.WriteByte('\n')
	short := map[string]string{}
	return private.ReplaceAllStringFunc(strings.ReplaceAll(b.String(), ";}", "}"), func(name string) string {
		if n := len(short); short[name] == "" {
			first := name[:1]
			if first != "#" && first != "_" {
				first = "$"
			}
			short[name] = fmt.Sprintf("%s%c%s", first, 'a'+n%26, strings.Repeat("_", n/26))
		}
		return short[name]
	})
}

// private matches the names of private members, of those that begin with _, and of
// constants. No text in the source has such a name in it.
var private = regexp.MustCompile(`#\w+|\b_[a-z]\w*|\b(?:[A-Z]+_[A-Z_]+|STEADY|SLICE|PROBE|LATE|UNKNOWN|LONGEST)\b`)

// dense drops the spaces of a line that do not stand between two words or in a text.
func dense(line string) string {
	word := func(c byte) bool {
		return c == '_' || c == '$' || c == '#' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
	}
	var b strings.Builder
	var quote byte // of the text, or 0
	for i := range len(line) {
		c := line[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '`'):
			quote = c
		case quote == 0 && c == ' ' && !(word(line[i-1]) && word(line[i+1])):
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
