package channels

import (
	"context"
	"sync"
)

// A coming is the context of a client that is being let in, or of a session while the app
// is asked about it. It ends with the context that it is made of, or when the client is
// ended. To watch a request takes more memory than a connection, and most of the app's
// code does not ask for it. So a coming begins to when somebody calls Done or Err. Its
// methods may be called concurrently.
type coming struct {
	context.Context // what it is made of

	mu     sync.Mutex // guards the fields below
	over   bool
	inner  context.Context // nil until somebody asks
	cancel context.CancelFunc
}

// watch returns the context that does the work.
func (c *coming) watch() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner, c.cancel = context.WithCancel(c.Context)
		if c.over {
			c.cancel()
		}
	}
	return c.inner
}

func (c *coming) Done() <-chan struct{} { return c.watch().Done() }

func (c *coming) Err() error { return c.watch().Err() }

// Value also lets package context find what Done belongs to, so that a context that is
// made of this one needs no goroutine.
func (c *coming) Value(key any) any {
	c.mu.Lock()
	inner := c.inner
	c.mu.Unlock()
	if inner == nil {
		inner = c.Context
	}
	return inner.Value(key)
}

// end ends the context. It may be repeated.
func (c *coming) end() {
	c.mu.Lock()
	c.over = true
	cancel := c.cancel
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
