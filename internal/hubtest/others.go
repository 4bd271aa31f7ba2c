package hubtest

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/channels-go/channels/store"
)

// ReportOthers has n other replicas, replica-01 and so on, report to a Store that they
// live and hear each other. They have so many channels together; 0 leaves them as they
// were. Repeat it once a second, or they are late.
func ReportOthers(ctx context.Context, st store.Store, n, channels int) error {
	for i := range n {
		peers := []map[string]any{}
		for k := range n + 1 {
			if k != i+1 {
				peers = append(peers, map[string]any{"node": otherName(k), "up": true, "rtt_ms": 0.25})
			}
		}
		info, err := json.Marshal(map[string]any{
			"node": otherName(i + 1), "status": "green", "reasons": []string{}, "started": time.Now(), "connections": 1000, "published": 5000,
			"mesh": map[string]any{"up": n, "down": 0, "peers": peers},
		})
		if err != nil {
			return err
		}
		r := store.Report{Replica: store.Replica{ID: otherName(i + 1), Started: time.Now(), Info: info}}
		for k := range channels / n {
			r.Channels = append(r.Channels, store.Count{Channel: fmt.Sprintf("channel-%d-%d", i, k), Subscribers: k % 1000})
		}
		if _, err := st.Report(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func otherName(i int) string { return fmt.Sprintf("replica-%02d", i) }
