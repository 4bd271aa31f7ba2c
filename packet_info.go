package channels

import (
	"bytes"
	"strconv"
	"time"

	"github.com/channels-go/channels/mesh"
)

// A packet's Info says when the Store has appended the message, and who published it. In
// the Store's own Info is only the second: both are one JSON object, in which the packet
// has the time first. Replicas of the versions before it read over the time, as over any
// member that they do not know. Without it, a message has no time.

const timePrefix = `{"time":`

// maxTime bounds the time with what stands around it, in bytes.
const maxTime = 32

// packetInfo is the Info of a packet. info is that of the Store.
func packetInfo(info []byte, at time.Time) []byte {
	if at.IsZero() {
		return info
	}
	b := append(make([]byte, 0, maxTime+len(info)), timePrefix...)
	b = strconv.AppendInt(b, at.UnixMilli(), 10)
	if len(info) == 0 {
		return append(b, '}')
	}
	return append(append(b, ','), info[1:]...)
}

// takeTime takes the time out of a packet's Info, which then is that of the Store. What
// is no time stays there.
func takeTime(p *mesh.Packet) time.Time {
	rest, ok := bytes.CutPrefix(p.Info, []byte(timePrefix))
	n := bytes.IndexAny(rest, ",}")
	if !ok || n <= 0 || n > 15 {
		return time.Time{}
	}
	ms, err := strconv.ParseInt(string(rest[:n]), 10, 64)
	if err != nil || ms <= 0 || rest[n] == '}' && n+1 < len(rest) {
		return time.Time{}
	}
	if p.Info = nil; rest[n] == ',' {
		p.Info = rest[n:]
		p.Info[0] = '{' // whoever delivers a packet gives its Info away
	}
	return time.UnixMilli(ms)
}
