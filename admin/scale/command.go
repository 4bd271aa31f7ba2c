package scale

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/channels-go/channels/admin"
)

// CommandOptions are two commands, each a program and its arguments. They run
// without a shell: nothing in them is expanded but {n}.
type CommandOptions struct {
	// Scale sets the number. It stands where an argument has {n}, or is the
	// last argument if none has:
	//
	//	[]string{"docker", "service", "scale", "--detach", "shop_app={n}"}
	Scale []string
	// Replicas prints how many replicas are ready and how many are wanted, as
	// two integers with a space, a line or a slash between them, or one that
	// is both:
	//
	//	[]string{"docker", "service", "ls", "--filter", "name=shop_app", "--format", "{{.Replicas}}"}
	//
	// It runs at most once a second.
	Replicas []string
	// Timeout bounds each command: then it gets SIGTERM, and is killed two
	// seconds later. What it has started itself is not. Default: 10 s.
	Timeout time.Duration
}

// Command returns a Scaler that runs commands, one of each kind at a time. They
// get this process's environment, and nothing on their standard input. If one
// fails, the error repeats the beginning of what it wrote to its standard error:
// it must write no secret there.
func Command(o CommandOptions) (admin.Scaler, error) {
	c := &command{timeout: o.Timeout, changes: make(chan struct{}, 1), looks: make(chan struct{}, 1)}
	if c.timeout <= 0 {
		c.timeout = 10 * time.Second
	}
	for name, argv := range map[string][]string{"Scale": o.Scale, "Replicas": o.Replicas} {
		if len(argv) == 0 || argv[0] == "" {
			return nil, fmt.Errorf("scale: %s has no program; set both commands", name)
		}
		if strings.Contains(argv[0], number) {
			return nil, fmt.Errorf("scale: the program of %s has %s in its name; use it in an argument", name, number)
		}
		if _, err := exec.LookPath(argv[0]); err != nil {
			return nil, fmt.Errorf("scale: %s: %w", name, err)
		}
	}
	c.scale, c.replicas = slices.Clone(o.Scale), slices.Clone(o.Replicas)
	if !slices.ContainsFunc(c.scale[1:], func(arg string) bool { return strings.Contains(arg, number) }) {
		c.scale = append(c.scale, number)
	}
	return c, nil
}

// number stands for the number of replicas in an argument.
const number = "{n}"

// command is a Scaler. Its methods may be called concurrently.
type command struct {
	scale, replicas []string
	timeout         time.Duration
	changes         chan struct{} // holds one while scale runs
	looks           chan struct{} // holds one while replicas runs; guards the fields below
	looked          time.Time     // when replicas ended
	ready, wanted   int           // what it said then
}

// fresh is how long the last answer of the command Replicas is good: every open
// page asks for it each second.
const fresh = time.Second

func (c *command) Replicas(ctx context.Context) (ready, wanted int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if err := enter(ctx, c.looks); err != nil {
		return 0, 0, err
	}
	defer leave(c.looks)
	if !c.looked.IsZero() && time.Since(c.looked) < fresh {
		return c.ready, c.wanted, nil
	}
	out, err := run(ctx, c.replicas)
	if err == nil {
		ready, wanted, err = parseNumbers(out)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("command %.100q: %w", c.replicas[0], err)
	}
	c.ready, c.wanted, c.looked = ready, wanted, time.Now()
	return ready, wanted, nil
}

func (c *command) Scale(ctx context.Context, n int) error {
	if n < 0 {
		return fmt.Errorf("command: cannot scale to %d; 0 is the least", n)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if err := enter(ctx, c.changes); err != nil {
		return err
	}
	defer leave(c.changes)
	argv := slices.Clone(c.scale)
	for i := range argv[1:] {
		argv[i+1] = strings.ReplaceAll(argv[i+1], number, strconv.Itoa(n))
	}
	if _, err := run(ctx, argv); err != nil {
		return fmt.Errorf("command %.100q: %w", argv[0], err)
	}
	// What Replicas said before is past.
	if err := enter(ctx, c.looks); err != nil {
		return nil // it will be past before the command that runs has ended
	}
	c.looked = time.Time{}
	leave(c.looks)
	return nil
}

func enter(ctx context.Context, room chan struct{}) error {
	select {
	case room <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the command before has not ended: %w", ctx.Err())
	}
}

func leave(room chan struct{}) { <-room }

// run runs a command until it ends or ctx does, and returns its output.
func run(ctx context.Context, argv []string) (string, error) {
	var stdout, stderr head
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second // also for what holds its output after it has ended
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it went well, and something that it has left running holds its output
	}
	if late := ctx.Err(); late != nil && err != nil {
		err = fmt.Errorf("it was ended, since it took too long: %w", late)
	}
	if err != nil {
		if said := plain(stderr.String()); said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return "", err
	}
	return stdout.String(), nil
}

// head keeps the beginning of what is written to it. The rest is dropped, so
// that the writer need not wait.
type head struct{ kept bytes.Buffer }

// maxOutput is how much a head keeps.
const maxOutput = 4 << 10

func (h *head) Write(p []byte) (int, error) {
	h.kept.Write(p[:min(len(p), maxOutput-h.kept.Len())])
	return len(p), nil
}

func (h *head) String() string { return h.kept.String() }

// parseNumbers reads one number or two.
func parseNumbers(out string) (ready, wanted int, err error) {
	fields := strings.FieldsFunc(out, func(r rune) bool { return strings.ContainsRune(" \t\r\n/", r) })
	wrong := func() (int, int, error) {
		return 0, 0, fmt.Errorf("it printed %q; it must print one or two integers, like 3/5", plain(out))
	}
	if len(fields) < 1 || len(fields) > 2 {
		return wrong()
	}
	var numbers []int
	for _, f := range fields {
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil || n > maxReplicas {
			return wrong()
		}
		numbers = append(numbers, int(n))
	}
	return numbers[0], numbers[len(numbers)-1], nil
}
