package tracing

import "context"

// Inject and Extract are those of the Tracer that a hub is given.
func Inject(ctx context.Context) []byte { return new(observer).Inject(ctx) }
func Extract(ctx context.Context, trace []byte) context.Context {
	return new(observer).Extract(ctx, trace)
}
