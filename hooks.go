package channels

import (
	"fmt"
	"runtime/debug"
)

// guard calls the app's code, or a Store's or Mesh's. It turns a panic into an
// error and logs the stack.
func (h *Hub) guard(name string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			h.log.Error("panic in "+name, "panic", r, "stack", string(debug.Stack()))
			err = &panicked{ErrInternal.because(fmt.Errorf("panic in %s: %v", name, r))}
		}
	}()
	return f()
}
