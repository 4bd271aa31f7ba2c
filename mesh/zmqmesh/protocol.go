package zmqmesh

import (
	"strings"

	"github.com/channels-go/channels/internal/zmtp"
)

// A replica sends messages of one frame to the replicas that have connected to
// it. The first byte says what it is.
const (
	sendPackets = 'P' // packets follow, one behind the other
	sendEcho    = 'E' // the number of an askEcho follows
	sendLost    = 'L' // packets before this message were not sent
	sendBye     = 'B' // the replica leaves; nothing follows
)

// The other side sends topics as ZMTP 3.0 has them, and questions.
const (
	askLeave     = zmtp.AskCancel // the topic follows
	askSubscribe = zmtp.AskSubscribe
	askEcho      = 2 // a number of 8 bytes follows, to be sent back
)

// askLimits bound each of them.
var askLimits = zmtp.Limits{Frame: 1 << 10, Message: 1 << 10, Frames: 1}

const (
	maxTopic      = 512       // bytes of a channel's name, or of a prefix
	maxTopics     = 2_000_000 // of one peer
	maxPrefixes   = 16_384    // among them, since each change of them copies all
	maxTopicBytes = 256 << 20 // of one peer, with topicCost for each
	maxEchoes     = 1_024     // that wait to be answered
	topicCost     = 64        // bytes
)

// append appends a topic as it is sent: a channel and "\0", or a prefix alone. The
// empty prefix is the empty channel and "\0".
func (t topic) append(b []byte) []byte {
	b = append(b, t.name...)
	if !t.prefix || t.name == "" {
		b = append(b, 0)
	}
	return b
}

// parseTopic parses what append has made.
func parseTopic(b []byte) topic {
	name, whole := strings.CutSuffix(string(b), "\x00")
	return topic{name, !whole || name == ""}
}
