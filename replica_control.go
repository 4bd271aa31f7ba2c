package channels

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/channels-go/channels/internal/exact"
	"github.com/channels-go/channels/mesh"
)

// A control is the body of a control packet, by which hubs talk to each other over
// the mesh. The packet's header says what it is about. A hub ignores headers and
// fields that it does not know, so that replicas of different versions work
// together.
type control struct {
	Version int          `json:"v"`
	Kind    string       `json:"kind,omitempty"` // what Who is
	Who     []byte       `json:"who,omitempty"`  // base64 in JSON: an identity's id may be any bytes
	Channel string       `json:"channel,omitempty"`
	N       uint64       `json:"n,omitempty"`     // the number of the canary, or of the question
	Epoch   string       `json:"epoch,omitempty"` // of the log of canaries in the sender's Store
	Replica *replicaJSON `json:"node,omitempty"`  // the sender
	Users   [][]byte     `json:"users,omitempty"` // ids of users, as Who
	Found   []int        `json:"found,omitempty"` // places in the Users of the question N
}

const controlVersion = 1

// The headers of control packets.
const (
	controlDisconnect  = "disconnect"
	controlUnsubscribe = "unsubscribe"
	controlSubscribe   = "subscribe"
	controlCanary      = "canary" // to all; each hub answers with an echo
	controlEcho        = "echo"
	controlBye         = "bye"    // the sender shuts down
	controlOnline      = "online" // asks all which users are connected; each hub answers with here
	controlHere        = "here"
	// controlCommands has a frame of commands for a session as its body, which is no
	// control, and the session's key as its Sender (connect_emulation.go).
	controlCommands = "commands"
)

// The kinds of control.Who.
const (
	kindUser   = "user"   // an identity's id
	kindClient = "client" // a connection's id
)

// maxControlBytes bounds the body of a control packet.
const maxControlBytes = 16 << 10

// control sends a control packet to one replica, or to all if to is empty.
func (h *Hub) control(ctx context.Context, to, header string, c control) error {
	c.Version = controlVersion
	body, err := json.Marshal(c)
	if err != nil || len(body) > maxControlBytes {
		return ErrTooLarge.saying("the id is too long to be sent to the other replicas").because(err)
	}
	ctx, cancel := context.WithTimeout(ctx, canaryPeriod)
	defer cancel()
	p := mesh.Packet{Kind: mesh.KindControl, To: to, Header: header, Body: body}
	if err := h.guard("the mesh", func() error { return h.mesh.Publish(ctx, p) }); err != nil {
		return ErrMeshUnavailable.because(fmt.Errorf("control %q: %w", header, err))
	}
	return nil
}

// A letter is a control packet that waits to be sent.
type letter struct {
	to, header string
	control
}

// maxLetters bounds those that wait.
const maxLetters = 256

// reply has pulse send a control packet to one replica. It never waits. If it fails, the
// other replica notices.
func (h *Hub) reply(to, header string, c control) {
	select {
	case h.letters <- letter{to, header, c}:
	default: // too much to answer
	}
}

// takeControl does what another replica's hub asks. It never waits.
func (h *Hub) takeControl(p mesh.Packet) {
	if p.Header == controlCommands {
		h.takeCommands(p)
		return
	}
	var c control
	if len(p.Body) > maxControlBytes || exact.Unmarshal(p.Body, &c) != nil || c.Version != controlVersion {
		h.log.Debug("mesh: a control packet that this version does not know", "from", p.Origin, "header", p.Header)
		return
	}
	switch p.Header {
	case controlDisconnect, controlUnsubscribe:
		h.endHere(p.Header, &c)
	case controlSubscribe:
		h.subscribeLater(&c)
	case controlCanary:
		h.heard(p.Origin, &c)
		h.reply(p.Origin, controlEcho, control{N: c.N})
	case controlEcho:
		h.vitals.echoed(c.N)
	case controlOnline:
		h.answerOnline(p.Origin, &c)
	case controlHere:
		h.questions.answered(p.Origin, &c)
	case controlBye:
		h.others.goodbye(p.Origin)
	}
}
