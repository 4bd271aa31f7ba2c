package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/channels-go/channels"
)

// skipOnSignal makes a second signal end the delay of the drain. After that
// signal, or after the delay, the next signal ends the process. The returned
// function stops this. ctx is the drain's.
func skipOnSignal(ctx context.Context, hub *channels.Hub, delay time.Duration) func() {
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGTERM, syscall.SIGINT)
	ended, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with the delay, or when run calls the returned function, which waits for it
		defer close(done)
		select {
		case <-again:
			signal.Reset(syscall.SIGTERM, syscall.SIGINT)
			hub.Drain(ctx) // a second Drain ends the delay of the first
		case <-time.After(delay):
			signal.Reset(syscall.SIGTERM, syscall.SIGINT)
		case <-ended:
			signal.Stop(again)
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}
