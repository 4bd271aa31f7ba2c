package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// checkText refuses what editors and shells leave in a file, or in a variable,
// so that it is not what it seems to be. An error names it and repeats nothing.
func checkText(b []byte) error {
	nul := bytes.IndexByte(b, 0)
	switch {
	case len(b) == 0:
		return errors.New("it is empty")
	case bytes.HasPrefix(b, []byte{0xef, 0xbb, 0xbf}):
		return errors.New("it begins with a byte order mark (EF BB BF), which an editor has put there and nobody sees: save it as UTF-8 without one")
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}), bytes.HasPrefix(b, []byte{0xfe, 0xff}), nul >= 0 && bytes.Count(b, []byte{0}) >= len(b)/3:
		return errors.New("it is text in UTF-16 (or UTF-32), as PowerShell's > writes it: save it as UTF-8 or ASCII")
	case nul >= 0 && utf8.Valid(b):
		return fmt.Errorf("byte %d of it is NUL, which no text has: write it again, as one line of text", nul)
	}
	return nil
}

// readSecret returns the secret that a file or a variable holds: without the
// line's end that every editor writes. It refuses what nobody sees in it and
// nobody means, since the secret would be another than the one that others
// have. One that is no text, but bytes, is taken as it is.
func readSecret(b []byte) ([]byte, error) {
	if err := checkText(b); err != nil {
		return nil, err
	}
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 {
		return nil, errors.New("it is empty but for line ends")
	}
	if !utf8.Valid(b) {
		return b, nil
	}
	return b, checkLine(string(b))
}

// quotes are pairs that stand around a text which is not meant to have them.
var quotes = []string{`""`, "''", "``", "“”", "‘’", "«»"}

// checkLine refuses what is not one line of visible text.
func checkLine(s string) error {
	for i, r := range s {
		switch {
		case r == '\n' || r == '\r':
			if strings.TrimLeft(s[:i], "\r\n\t ") == "" {
				return errors.New("it begins with a blank line: remove that")
			}
			return errors.New("it has more than one line (a blank one, a line end of Windows, or a second secret): write it as one line")
		case r == '\t' || r == ' ' || unicode.IsSpace(r):
			if i == 0 {
				return errors.New("it begins with a space or a tab: remove that")
			}
			if strings.TrimSpace(s[i:]) == "" {
				return errors.New("it ends with a space or a tab: remove that")
			}
			if r != ' ' {
				return fmt.Errorf("byte %d of it is a space that looks like another (%U): write it again", i, r)
			}
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r):
			return fmt.Errorf("byte %d of it is a character that nobody sees (%U): write it again", i, r)
		}
	}
	for _, q := range quotes {
		first, n := utf8.DecodeRuneInString(q)
		if strings.HasPrefix(s, string(first)) && strings.HasSuffix(s, q[n:]) && len(s) >= len(q) {
			return fmt.Errorf("it has quotes around it (%s), which would be a part of it: remove them", q)
		}
	}
	if strings.HasSuffix(s, `\n`) || strings.HasSuffix(s, `\r`) {
		return errors.New(`it ends with a backslash and a letter (\n), which was meant as a line end and would be a part of it: remove both`)
	}
	return nil
}
