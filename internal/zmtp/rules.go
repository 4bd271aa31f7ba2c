package zmtp

import "time"

const (
	// ShakeTimeout bounds TLS's handshake, and ZMTP's after it.
	ShakeTimeout = 5 * time.Second
	// IdleTimeout is how long a peer may send nothing, unless Rules.Patient. It ends the
	// mesh's dead links.
	IdleTimeout = 6 * time.Second
	// StallTimeout is how long a peer may take nothing of what is written.
	StallTimeout = 3 * time.Second
)

const (
	greetingBytes = 64
	maxShakeFrame = 512     // bytes of one command of the handshake
	maxShakes     = 16      // commands of the handshake
	maxCommand    = 1 << 10 // bytes of a command after the handshake
	maxSkipped    = 64      // unknown commands in a minute
	shakeBuffer   = 1 << 10 // bytes of each buffer during the handshake, which strangers may begin
)

// MaxPing is how many bytes of context a PING may have.
const MaxPing = 64

// Limits bound what a peer may send after the handshake.
type Limits struct {
	Frame, Message int // bytes
	Frames         int // in one message
}

// Rules say what the peer of a connection may do.
type Rules struct {
	Mechanism string // the security mechanism that the peer's greeting must name
	Limits    Limits
	Buffer    int // bytes of each direction's buffer after the handshake

	// Ping gets the context of each PING, which it must not keep. If it is nil,
	// no command is allowed after the handshake.
	Ping func(context []byte)
	// Subscribe gets the topics of the commands SUBSCRIBE and CANCEL. If it is
	// nil, these are skipped like unknown commands.
	Subscribe func(topic []byte, on bool) error

	// Patient lets the peer be silent between messages: for Silence, if that is
	// set, unless Busy says that something still waits to be sent to the peer;
	// otherwise for ever. Within a message, IdleTimeout holds.
	Patient bool
	Silence time.Duration
	Busy    func() bool

	// Whole is the time that a message has from its first byte to its last.
	// Nil: any, as long as something comes within each IdleTimeout.
	Whole *Pace
	// Admission is asked before memory is allocated for a message. Nil: Limits
	// alone bound it.
	Admission Admission
}

// A Pace is how much time a message has: Start whatever its size, and as long as
// it needs at Rate bytes a second.
type Pace struct {
	Start time.Duration
	Rate  int
}

// Of returns the time that a message of size bytes has.
func (p Pace) Of(size int) time.Duration {
	return p.Start + time.Duration(size)*time.Second/time.Duration(p.Rate)
}

// An Admission decides whether there is memory for a message. The goroutine
// that reads the connection calls its methods.
type Admission interface {
	// Announced is called when the header of a frame has come: with that frame,
	// the message has size bytes so far, and if more is true, other frames
	// follow. It may wait, and returns for how long it did: that time is not the
	// peer's. An error ends the connection.
	Announced(size int, more bool) (waited time.Duration, err error)
	// Complete is called when the last byte of a message has been read.
	Complete()
}
