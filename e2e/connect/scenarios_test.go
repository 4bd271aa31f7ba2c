package connect

import "testing"

// A scenario is what a client of every kind has to get through. It ends by events:
// it never sleeps, and what does not come in basetest.Patience has failed.
type scenario struct {
	name string
	run  func(t *testing.T, k kind)
}

var scenarios = []scenario{
	{name: "connect", run: connects},
	{name: "token that is wrong", run: wrongToken},
	{name: "token that has expired", run: expiredToken},
	{name: "token that is refreshed", run: refreshedToken},
	{name: "disconnected by the app", run: disconnected},

	{name: "subscribe, publish, echo", run: publishes},
	{name: "not allowed", run: notAllowed},
	{name: "token for a channel", run: channelToken},
	{name: "presence, join and leave", run: presence},
	{name: "history", run: history},
	{name: "the last messages first", run: lastFirst},
	{name: "fifty channels", run: fiftyChannels},
	{name: "patterns", run: patterns},
	{name: "subscribed by the app", run: subscribedByApp},
	{name: "unsubscribed by the app", run: unsubscribed},

	{name: "rpc", run: rpc},
	{name: "rpc publish", run: rpcPublish},
	{name: "send", run: send},

	{name: "cut of 1 s", run: shortCut},
	{name: "cut of 60 s", run: longCut},
	{name: "trimmed", run: trimmed},
	{name: "restart with memory", run: restarted},
	{name: "slow reader", run: slowReader},
	{name: "drained", run: drained},
	{name: "killed", run: killed},
	{name: "moved", run: moved},
	{name: "two replicas before the first message", run: beforeTheFirst},

	{name: "proxy that cuts idle connections", run: idleProxy},
	{name: "proxy that refuses upgrades", run: noUpgrades},
}

func TestScenarios(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			for _, s := range scenarios {
				if !leftOut(k, s.name) {
					t.Run(s.name, func(t *testing.T) {
						t.Parallel()
						s.run(t, k)
					})
				}
			}
		})
	}
}
