//go:build linux

package deploy

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/stretchr/testify/require"
)

// built is where the Dockerfile puts the binary.
const built = "/out/server"

// stages reads the Dockerfile with Docker's own parser, and what its linter says.
func stages() (all []instructions.Stage, warnings []string, err error) {
	b, err := os.ReadFile("Dockerfile")
	if err != nil {
		return nil, nil, err
	}
	file, err := parser.Parse(bytes.NewReader(b))
	if err != nil {
		return nil, nil, err
	}
	for _, w := range file.Warnings {
		warnings = append(warnings, w.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, _ []parser.Range) {
		warnings = append(warnings, rule+": "+message)
	}})
	all, _, err = instructions.Parse(file.AST, lint)
	return all, warnings, err
}

// buildCommand returns the Dockerfile's command that builds the binary.
func buildCommand() (string, error) {
	all, _, err := stages()
	if err != nil {
		return "", err
	}
	for _, c := range all[0].Commands {
		if run, ok := c.(*instructions.RunCommand); ok && strings.Contains(run.CmdLine[0], built) {
			return run.CmdLine[0], nil
		}
	}
	return "", errors.New("Dockerfile: nothing builds " + built)
}

// of returns the instructions of a kind.
func of[T instructions.Command](s instructions.Stage) (all []T) {
	for _, c := range s.Commands {
		if c, ok := c.(T); ok {
			all = append(all, c)
		}
	}
	return all
}

// The image has the binary and nothing to run beside it, and does not run as root.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	all, warnings, err := stages()
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.Len(t, all, 2)
	build, image := all[0], all[1]

	require.Equal(t, "scratch", image.BaseName)
	require.Regexp(t, `^golang:1\.\d+$`, build.BaseName)
	require.Empty(t, of[*instructions.RunCommand](image))
	var copied []string
	for _, c := range of[*instructions.CopyCommand](image) {
		require.Equal(t, build.Name, c.From)
		copied = append(copied, c.SourcePaths...)
	}
	require.Equal(t, []string{"/etc/ssl/certs/ca-certificates.crt", built}, copied)

	users := of[*instructions.UserCommand](image)
	require.Len(t, users, 1)
	require.Equal(t, user+":"+user, users[0].User)
	entry := of[*instructions.EntrypointCommand](image)
	require.Len(t, entry, 1)
	require.Equal(t, []string{"/server"}, []string(entry[0].CmdLine))
	require.False(t, entry[0].PrependShell, "there is no shell")
	args := of[*instructions.CmdCommand](image)
	require.Len(t, args, 1)
	listens := readFlags(t, args[0].CmdLine).one(t, "addr")
	starts(t, args[0].CmdLine)
	require.Contains(t, of[*instructions.ExposeCommand](image)[0].Ports, port(t, listens))
}

// user is whom the image runs as.
const user = "65532"
