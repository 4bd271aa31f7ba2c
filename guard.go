package channels

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// guard calls the app's code, or a Store's or Mesh's. It turns a panic into an
// error and logs the stack.
func (h *Hub) guard(name string, f func() error) error { return guard(h.log, name, f) }

func guard(log *slog.Logger, name string, f func() error) (err error) {
	defer caught(log, name, "", &err)
	return f()
}

// caught is deferred by what is guarded itself: to call it by guard takes more stack. It
// puts the two parts of the name together only for a panic.
func caught(log *slog.Logger, kind, name string, err *error) {
	if r := recover(); r != nil {
		log.Error("panic in "+kind+name, "panic", r, "stack", string(debug.Stack()))
		*err = &panicked{ErrInternal.because(fmt.Errorf("panic in %s%s: %v", kind, name, r))}
	}
}

// panicked is an ErrInternal that also ends the connection that it happened on.
type panicked struct{ err *Error }

func (p *panicked) Error() string { return p.err.Error() }

func (p *panicked) Unwrap() error { return p.err }

// refusal is what a client gets for a hook's error: the error itself if it is an
// *Error, and "forbidden" otherwise.
func (h *Hub) refusal(hook string, err error) error {
	var crash *panicked
	if errors.As(err, &crash) {
		return crash
	}
	h.log.Debug("refused", "by", hook, "err", err)
	return visible(err, ErrForbidden)
}
