package turns_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/internal/turns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Everybody gets a turn.
func TestTake(t *testing.T) {
	line := turns.New()
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(line.Take)
	}
	wg.Wait()
}

// What becomes ready while many wait for their turn runs before most of them have had it.
func TestOthersRunMeanwhile(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	line := turns.New()
	const many = 200 // they fit into the queue of one processor
	var started atomic.Int64
	var wg sync.WaitGroup
	woken := make(chan struct{})
	for range many {
		wg.Go(func() {
			<-woken
			line.Take()
			started.Add(1)
		})
	}
	for range many { // until all wait
		runtime.Gosched()
	}
	close(woken)
	before := make(chan int64)
	go func() { before <- started.Load() }() // the next one takes its place at the front
	go func() {}()
	require.Less(t, <-before, int64(many)/2)
	wg.Wait()
}
