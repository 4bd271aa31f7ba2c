// Package clientproto reads and writes the Centrifuge client protocol, version 2:
// commands of clients, and what a server answers and pushes to them, in JSON or
// Protobuf. Its types are those of the protocol's schema, the file client.proto of
// github.com/centrifugal/protocol, without what this server does not serve.
//
// Everything that is read may come from an attacker. What reading allocates is in
// proportion to the input, within the caller's [Limits], and nothing recurses deeper
// than the schema. A field that the package does not know is ignored.
//
// The fields named Data and those that end in Info are JSON, of any kind, in both
// formats. If they were read, they share memory with the input: a caller that keeps
// one longer than the input has to copy it. Strings never share memory. What the
// package writes holds nothing of its arguments.
package clientproto

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math"
)

// A Format is how messages are encoded.
type Format uint8

const (
	JSON     Format = iota // one message to a line
	Protobuf               // each message begins with its length
)

func (f Format) String() string {
	if f == JSON {
		return "JSON"
	}
	return "Protobuf"
}

// Limits bound what a frame of commands may hold.
type Limits struct {
	Commands int
	Subs     int // the subscriptions of one connect
}

// Commands yields the commands of a frame, which is one message of a WebSocket or
// one body of a request. There is at least one, or an error.
//
//   - If the command is nil, the frame is broken there, and ends.
//   - If there are a command and an error, only this command is bad: its data is not
//     JSON, and is left out. The error's text is meant for the client.
func Commands(frame []byte, f Format, l Limits) iter.Seq2[*Command, error] {
	return func(yield func(*Command, error) bool) {
		c := coder{format: f, reading: true, maxEntries: l.Subs}
		n := 0
		for one, err := range messages(frame, f) {
			if n++; n > l.Commands {
				yield(nil, fmt.Errorf("the frame has more than the %d commands that are allowed", l.Commands))
				return
			}
			cmd := new(Command)
			if err == nil {
				c.invalid = nil
				cmd.Unknown = c.read(one, cmd)
				err = c.err
			}
			if err != nil {
				yield(nil, fmt.Errorf("command %d: %w", n, err))
				return
			}
			if !yield(cmd, c.invalid) {
				return
			}
		}
		if n == 0 {
			yield(nil, errors.New("the frame has no command"))
		}
	}
}

// Replies yields the replies of a frame, and ends with the first error. It is the
// client's side of the protocol.
func Replies(frame []byte, f Format) iter.Seq2[*Reply, error] {
	return func(yield func(*Reply, error) bool) {
		c := coder{format: f, reading: true, maxEntries: math.MaxInt}
		for one, err := range messages(frame, f) {
			r := new(Reply)
			if err == nil {
				c.read(one, r)
				err = cmp.Or(c.err, c.invalid)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

// messages cuts a frame.
func messages(frame []byte, f Format) iter.Seq2[[]byte, error] {
	if f == JSON {
		return jsonMessages(frame)
	}
	return protobufMessages(frame)
}

// AppendReply appends a reply, as one message of a frame. An empty one is a ping. In
// JSON, it has no line breaks: a Data or Info that has some is written without white
// space, or as null if it is no JSON.
func AppendReply(b []byte, f Format, r *Reply) []byte { return appendMessage(b, f, r) }

// AppendPush appends a reply that has only a push.
func AppendPush(b []byte, f Format, p *Push) []byte { return AppendReply(b, f, &Reply{Push: p}) }

// AppendPublication appends the push of a channel's publication. It allocates nothing
// if b has room, and writes the data once: see BenchmarkAppendPublication.
func AppendPublication(b []byte, f Format, channel string, p *Publication) []byte {
	c := writer(b, f)
	size := 32 + len(channel) + len(p.Data) // about
	reply := c.begin(0, "", size)
	push := c.begin(4, "push", size)
	c.text(2, "channel", &channel)
	pub := c.begin(4, "pub", size-len(channel))
	p.fields(c)
	c.end(pub)
	c.end(push)
	c.end(reply)
	return c.close()
}

// AppendCommand appends a command. It is the client's side of the protocol.
func AppendCommand(b []byte, f Format, cmd *Command) []byte { return appendMessage(b, f, cmd) }

func appendMessage(b []byte, f Format, m message) []byte {
	c := writer(b, f)
	mark := c.begin(0, "", 0)
	m.fields(c)
	c.end(mark)
	return c.close()
}

// AppendToFrame appends an encoded message to a frame, which may be empty.
func AppendToFrame(frame []byte, f Format, message []byte) []byte {
	if f == JSON && len(frame) > 0 {
		frame = append(frame, '\n')
	}
	return append(frame, message...)
}
