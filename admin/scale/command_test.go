package scale_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/admin/scale"
	"github.com/channels-go/channels/internal/basetest"
)

// asCommand is the argument that makes the test binary a command.
const asCommand = "as-command"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == asCommand {
		os.Exit(beCommand(os.Args[2], os.Args[3:]))
	}
	goleak.VerifyTestMain(m)
}

// beCommand is what the commands of the tests do.
func beCommand(does string, args []string) int {
	switch does {
	case "write": // the other arguments to a file
		if os.WriteFile(args[0], []byte(strings.Join(args[1:], "|")), 0o600) != nil {
			return 1
		}
	case "print": // a file
		b, err := os.ReadFile(args[0])
		if err != nil {
			return 1
		}
		os.Stdout.Write(b)
	case "fail":
		fmt.Println("3")
		fmt.Fprintln(os.Stderr, "no such\n\x1b[31mservice "+strings.Repeat("x", 10_000))
		return 3
	case "hang", "ignore": // once the file tells that it runs
		if does == "ignore" {
			signal.Ignore(syscall.SIGTERM)
		}
		if os.WriteFile(args[0], nil, 0o600) != nil {
			return 1
		}
		time.Sleep(time.Hour)
	case "flood":
		fmt.Print(strings.Repeat("5 ", 1<<20))
	}
	return 0
}

// does is a command line.
func does(args ...string) []string { return append([]string{os.Args[0], asCommand}, args...) }

func newCommand(t *testing.T, o scale.CommandOptions) admin.Scaler {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = basetest.Patience
	}
	s, err := scale.Command(o)
	require.NoError(t, err)
	return s
}

// The number stands where {n} is, or at the end. No shell expands anything.
func TestCommandScales(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"at the end":   {[]string{"app"}, "app|5"},
		"in its place": {[]string{"app={n}", "$HOME `id` *", "{n}{n}"}, "app=5|$HOME `id` *|55"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "written")
			s := newCommand(t, scale.CommandOptions{Scale: does(append([]string{"write", file}, c.args...)...), Replicas: does("print", file)})
			require.NoError(t, s.Scale(t.Context(), 5))
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, c.want, string(b))
			require.ErrorContains(t, s.Scale(t.Context(), -1), "0 is the least")
		})
	}
}

// What Replicas has said is past once Scale has returned.
func TestCommandTellsReplicas(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "numbers")
	s := newCommand(t, scale.CommandOptions{Scale: does("write", file), Replicas: does("print", file)})
	_, _, err := s.Replicas(t.Context())
	require.ErrorContains(t, err, "exit status 1")
	require.NoError(t, os.WriteFile(file, []byte("2/3\n"), 0o600))
	wantReplicas(t, s, 2, 3)
	require.NoError(t, s.Scale(t.Context(), 7))
	wantReplicas(t, s, 7, 7)
}

// An error repeats the beginning of what a command says, as one plain line.
func TestCommandFails(t *testing.T) {
	t.Parallel()
	s := newCommand(t, scale.CommandOptions{Scale: does("fail"), Replicas: does("fail")})
	err := s.Scale(t.Context(), 2)
	require.ErrorContains(t, err, "exit status 3: no such [31mservice xxx")
	require.Less(t, len(err.Error()), 1000)
	_, _, err = s.Replicas(t.Context())
	require.ErrorContains(t, err, "exit status 3")

	s = newCommand(t, scale.CommandOptions{Scale: does("flood"), Replicas: does("flood")})
	require.NoError(t, s.Scale(t.Context(), 2), "what it prints does not matter")
	_, _, err = s.Replicas(t.Context())
	require.ErrorContains(t, err, "it must print one or two integers")
	require.Less(t, len(err.Error()), 1000)
}

// A command that hangs is ended, even if it ignores SIGTERM. The next one does
// not begin before.
func TestCommandHangs(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"hang", "ignore"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "runs")
			s := newCommand(t, scale.CommandOptions{Scale: does(how, file), Replicas: does(how, file)})
			first, end := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Scale(first, 1) }() // ends with first
			basetest.Eventually(t, "the command runs", func() bool {
				_, err := os.Stat(file)
				return err == nil
			})
			second, cancel := context.WithCancel(t.Context())
			cancel()
			require.ErrorContains(t, s.Scale(second, 2), "the command before has not ended")
			end()
			require.ErrorIs(t, <-ended, context.Canceled)
		})
	}
	s := newCommand(t, scale.CommandOptions{Scale: does("hang", os.DevNull), Replicas: does("hang", os.DevNull), Timeout: 10 * time.Millisecond})
	_, _, err := s.Replicas(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestCommandRefusesOptions(t *testing.T) {
	t.Parallel()
	good := does("print", "x")
	for want, o := range map[string]scale.CommandOptions{
		"Scale has no program":    {Replicas: good},
		"Replicas has no program": {Scale: good},
		"has {n} in its name":     {Scale: []string{"scale-{n}"}, Replicas: good},
		"Replicas: exec:":         {Scale: good, Replicas: []string{"no-such-program-here"}},
	} {
		_, err := scale.Command(o)
		require.ErrorContains(t, err, want)
	}
	// The caller's slices stay the caller's.
	argv := does("write", filepath.Join(t.TempDir(), "a"))
	s := newCommand(t, scale.CommandOptions{Scale: argv, Replicas: good})
	for i := range argv {
		argv[i] = ""
	}
	require.NoError(t, s.Scale(t.Context(), 1))
}
