package admin

// advice is what a reason means, and what to do about it.
type advice struct{ means, do string }

// reasonSilent is this page's own: it sees sooner than the hub that a replica is gone,
// and shows it for the hub's "heartbeat late", too.
const reasonSilent = "silent"

// reasons have what each of channels.Replica.Reasons means, and what to do.
// docs/admin.md has the same list.
var reasons = map[string]advice{
	"heartbeats missed":   {"Nothing was heard of it for 10 s: it has died, it hangs, or it is cut off. If it has died, its clients go to the other replicas; if it hangs, they stay and get nothing. It leaves this list a minute after its last heartbeat.", "See whether its process runs, and read the end of its log. If nothing starts it again, do that."},
	"reports lost: store": {"The Store has taken no report for 10 s, so nobody can tell from there who lives.", "See whether the Store runs and can be reached. Leave the replica running: it goes on by itself when the Store is back."},
	"canary lost: store":  {"Three test messages in a row did not get into the Store. Channels with history refuse what is published until they do.", "See whether the Store runs, can be reached from this replica, and has memory left. Leave the replica running: it goes on by itself when the Store is back."},
	"canary lost: mesh":   {"Three test messages in a row got no answer from another replica, so messages do not reach the others.", "See whether the replicas reach each other's mesh ports, or the broker."},
	reasonSilent:          {"Nothing has been heard of it for some seconds. It may have died; after 10 s it counts as lost.", "See whether its process runs, and whether its machine is overloaded."},
	"report late: store":  {"The Store has taken no report for 7 s, so what is shown of the other replicas may be old.", "See whether the Store is slow or restarts."},
	"canary late: store":  {"A test message or a report took the Store more than 1 s, or got lost. Publishes on channels with history take as long.", "See under Store whether it is slow or takes nothing, and what keeps it busy."},
	"canary late: mesh":   {"A test message to the other replicas took more than 1 s, or got lost.", "Look at the network and at how busy the replicas are."},
	"link down":           {"Its link to a replica that lives has been down for more than 9 s.", "See the links below, and whether that replica's mesh port can be reached from this one."},
	"another store":       {"The mesh hears it, but the Store does not know it: it uses another one, so their histories differ.", "Give all replicas the same Store."},
	"same name":           {"Another living replica has its name.", "Give each its own, or none: then each makes one up."},
	"lagging":             {"In the last 10 s it found messages missing that the mesh had not reported as lost, and fetched them from the Store. No other replica and no pause of the Store explains that.", "If it happens again, look at the network between the replicas, and at this one's processors."},
	"dropping":            {"In the last 10 s it dropped messages, since a subscriber or a peer was too slow.", "See which channel grows, and whether a link is slow."},
	"draining":            {"It is about to shut down: its clients are being told to go to another one.", "Nothing; it ends by itself."},
	"loaded":              {"It is at 80 % of its connections or of the bytes that may wait.", "Add a replica, which takes the new clients, or raise the limit."},
	"unknown":             {"It runs another version, whose state this one does not know.", "Open this page at that replica."},
}

// adviceFor explains a reason.
func adviceFor(reason string) advice {
	if a, ok := reasons[reason]; ok {
		return a
	}
	return advice{"The replica that serves this page is of a version that does not know this reason.", "Open this page at that replica."}
}
