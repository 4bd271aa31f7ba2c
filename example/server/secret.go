package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/channels-go/channels/middleware"
)

// secrets come from a file that the flag -NAME-file names, or are themselves in
// a variable. There is no flag for a secret itself.
var secrets = []struct {
	name, usage string
	add         func(*config, []byte) error
}{
	{"jwt-secret", "`FILE` with a secret of 32 bytes or more that signs tokens (HS256); repeatable. Or set the secret itself in CHANNELS_JWT_SECRET", func(c *config, b []byte) error {
		b, err := longSecret(b, "secret", 32)
		c.security.jwt.Keys = append(c.security.jwt.Keys, middleware.JWTKey{Key: b})
		return err
	}},
	{"api-keys", "`FILE` with the API keys of other servers, as JSON: [{\"name\":\"billing\",\"key\":\"…\",\"publish\":[\"orders.*\"]}], also with \"subscribe\" and \"list\"; repeatable. Or set the same JSON in CHANNELS_API_KEYS", func(c *config, b []byte) error {
		return c.security.addAPIKeys(b)
	}},
	{"mesh-key", "`FILE` with a secret of 16 bytes or more that all replicas share. Or set the secret itself in CHANNELS_MESH_KEY", func(c *config, b []byte) (err error) {
		c.mesh.zmq.Key, err = longSecret(b, "secret", 16)
		return err
	}},
	{"zmq-token", "`FILE` with a token of 16 bytes or more, which must be the last frame of each message to -zmq-pull and -zmq-rep. Or set the token itself in CHANNELS_ZMQ_TOKEN", func(c *config, b []byte) (err error) {
		c.security.zmqToken, err = longSecret(b, "token", 16)
		return err
	}},
	{"admin-token", "`FILE` with a token of 16 bytes or more that opens the operators' page at /admin/. Or set the token itself in CHANNELS_ADMIN_TOKEN (default: there is no page)", func(c *config, b []byte) error {
		b, err := longSecret(b, "token", 16)
		c.admin.Token = string(b)
		return err
	}},
}

// refuseSecrets refuses a command line with a secret, without showing it.
func refuseSecrets(args []string) error {
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		for _, s := range secrets {
			if strings.HasPrefix(arg, "-") && name == s.name {
				return fmt.Errorf("there is no flag -%s, since everyone on the machine can read a command line: set %s in the environment, or give a file with -%s-file", name, variable(name), name)
			}
		}
	}
	return nil
}

// readSecrets reads the secrets that come only from the environment. It refuses
// a secret that is also given by a file, since it is unclear which one should
// count.
func readSecrets(cfg *config, env func(string) (string, bool), given map[string]string) error {
	for _, one := range secrets {
		if v, ok := env(variable(one.name)); ok {
			if file := given[one.name+"-file"]; file != "" {
				return fmt.Errorf("there are two secrets: set either %s or %s", file, variable(one.name))
			}
			err := checkText([]byte(v))
			if err == nil {
				err = one.add(cfg, []byte(v))
			}
			if err != nil {
				return fmt.Errorf("%s: %w", variable(one.name), err) // without the value
			}
		}
	}
	return nil
}

// checkText refuses a file or variable with invisible extras from an editor or
// shell, since its value is not what it seems. The error describes the problem
// without showing the text.
func checkText(b []byte) error {
	nul := bytes.IndexByte(b, 0)
	switch {
	case len(b) == 0:
		return errors.New("it is empty")
	case bytes.HasPrefix(b, []byte{0xef, 0xbb, 0xbf}):
		return errors.New("it begins with an invisible byte order mark (EF BB BF), which an editor added: save it as UTF-8 without one")
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}), bytes.HasPrefix(b, []byte{0xfe, 0xff}), nul >= 0 && bytes.Count(b, []byte{0}) >= len(b)/3:
		return errors.New("it is text in UTF-16 (or UTF-32), as written by PowerShell's >: save it as UTF-8 or ASCII")
	case nul >= 0 && utf8.Valid(b):
		return fmt.Errorf("byte %d is NUL, which is not allowed in text: write it again, as one line of text", nul)
	}
	return nil
}

// longSecret returns the secret of at least so many bytes in a file or variable that
// checkText has passed, without the final line end that every editor adds. It refuses
// invisible characters, since the secret would differ from the one that others have. A
// secret of bytes that are not text is returned as it is.
func longSecret(b []byte, what string, least int) ([]byte, error) {
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 {
		return nil, errors.New("it is empty except for line ends")
	}
	if utf8.Valid(b) {
		if err := checkLine(string(b)); err != nil {
			return nil, err
		}
	}
	if len(b) < least {
		return nil, fmt.Errorf("the %s has %d bytes; it has to have %d or more, e.g. from: openssl rand -hex 32", what, len(b), least)
	}
	return b, nil
}

// quotes are pairs that may surround a text by mistake.
var quotes = []string{`""`, "''", "``", "“”", "‘’", "«»"}

// checkLine refuses anything but one line of visible text.
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
				return fmt.Errorf("byte %d is an unusual space (%U): replace it", i, r)
			}
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r):
			return fmt.Errorf("byte %d is an invisible character (%U): remove it", i, r)
		}
	}
	for _, q := range quotes {
		first, n := utf8.DecodeRuneInString(q)
		if strings.HasPrefix(s, string(first)) && strings.HasSuffix(s, q[n:]) && len(s) >= len(q) {
			return fmt.Errorf("it has quotes around it (%s), which would become part of it: remove them", q)
		}
	}
	if strings.HasSuffix(s, `\n`) || strings.HasSuffix(s, `\r`) {
		return errors.New(`it ends with a backslash and a letter (\n or \r), which would become part of it: remove both`)
	}
	return nil
}
