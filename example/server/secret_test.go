package main

import (
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"
)

// Bytes that editors and shells leave in a file do not become part of a secret.
// The error names them, for each kind of secret, from a file and from a
// variable.
func TestSecretsWithInvisibleBytes(t *testing.T) {
	utf16of := func(mark string, s string) string {
		b := []byte(mark)
		for _, u := range utf16.Encode([]rune(s)) {
			b = binary.LittleEndian.AppendUint16(b, u)
		}
		return string(b)
	}
	const plain = testSecret
	damaged := map[string]string{
		"\xef\xbb\xbf" + plain + "\n":      "byte order mark",
		utf16of("\xff\xfe", plain):         "UTF-16",
		utf16of("", plain):                 "UTF-16",
		plain[:16] + "\r\n" + plain[16:]:   "more than one line",
		plain + "\n\n" + plain + "\n":      "more than one line",
		"\n" + plain:                       "blank line",
		"\r\n" + plain:                     "blank line",
		plain + " \n":                      "ends with a space",
		plain + "\t":                       "ends with a space or a tab",
		" " + plain:                        "begins with a space",
		plain + "\u00a0":                   "ends with a space",
		plain[:16] + "\u00a0" + plain[16:]: "U+00A0",
		plain + "\x00\n":                   "NUL",
		plain[:16] + "\u200b" + plain[16:]: "U+200B",
		plain + "\ufeff":                   "U+FEFF",
		plain + "\x1b":                     "U+001B",
		`"` + plain + `"` + "\n":           "quotes",
		"'" + plain + "'":                  "quotes",
		"\u201c" + plain + "\u201d":        "quotes",
		plain + `\n`:                       "backslash",
		"":                                 "empty",
		"\n":                               "empty",
	}
	for _, c := range []struct {
		flag, variable string
		args           []string
	}{
		{"-jwt-secret-file", "CHANNELS_JWT_SECRET", nil},
		{"-zmq-token-file", "CHANNELS_ZMQ_TOKEN", []string{"-zmq-rep", "tcp://127.0.0.1:1"}},
		{"-admin-token-file", "CHANNELS_ADMIN_TOKEN", nil},
		{"-mesh-key-file", "CHANNELS_MESH_KEY", []string{"-mesh", "zmq", "-mesh-dns", "app:1"}},
	} {
		for text, says := range damaged {
			wantRefused(t, nil, append(c.args, c.flag, file(t, text)), says, c.flag)
			wantRefused(t, map[string]string{c.variable: text}, c.args, says, c.variable)
		}
		for _, text := range []string{plain, plain + "\n", plain + "\r\n", plain + "\n\n", "a phrase of several words, with é and 한국어", strings.Repeat("\xfe\x01\x9c\x00", 8)} {
			parsed(t, nil, append(c.args, c.flag, file(t, text))...)
		}
	}
	cfg := parsed(t, nil, "-jwt-secret-file", file(t, plain+"\r\n"))
	require.Equal(t, []byte(plain), cfg.security.jwt.Keys[0].Key)
}

// The same applies to files that hold more than a secret and to the URL of
// Redis.
func TestFilesWithInvisibleBytes(t *testing.T) {
	_, key := publicKey(t)
	for flag, text := range map[string]string{"-jwt-public-key": key, "-api-keys-file": testKeys, "-mesh-cert": key, "-mesh-tls-key": key, "-mesh-ca": key} {
		for damaged, says := range map[string]string{"\xef\xbb\xbf" + text: "byte order mark", "\xff\xfe" + text: "UTF-16", "": "empty"} {
			wantRefused(t, nil, []string{flag, file(t, damaged)}, says)
		}
	}
	wantRefused(t, map[string]string{"CHANNELS_API_KEYS": "\xef\xbb\xbf" + testKeys}, nil, "CHANNELS_API_KEYS: it begins with an invisible byte order mark")
	for text, says := range map[string]string{`"redis://:hush@a:1/0"`: "quotes", "redis://:hush@a:1/0 ": "ends with a space", "redis://:hush@a:1/0\n": "more than one line", "\xef\xbb\xbfredis://:hush@a:1/0": "byte order mark",
		"hush-hush-hush-hush": "it is not a URL"} {
		wantRefused(t, map[string]string{"CHANNELS_REDIS": text}, nil, says, "CHANNELS_REDIS")
	}
}
