package clientproto

import (
	"bytes"
	"errors"
)

// An EmulationRequest brings commands for a connection that has only a stream down.
type EmulationRequest struct {
	Node    string // from ConnectResult.Node
	Session string // from ConnectResult.Session
	Data    []byte // a frame of commands, in the connection's format
}

func (m *EmulationRequest) fields(c *coder) {
	c.text(1, "node", &m.Node)
	c.text(2, "session", &m.Session)
	c.frame(3, "data", &m.Data)
}

// ReadEmulation reads the body of such a request. In Protobuf, its Data shares memory
// with b.
func ReadEmulation(b []byte, f Format) (*EmulationRequest, error) {
	if f == JSON {
		b = bytes.Trim(b, space)
		if err := checkJSON(b); err != nil {
			return nil, err
		}
		if b[0] != '{' {
			return nil, errors.New("it has to be a JSON object")
		}
	}
	c, m := coder{format: f, reading: true}, new(EmulationRequest)
	if c.read(b, m); c.err != nil {
		return nil, c.err
	}
	return m, nil
}

// frame is for bytes that are a text in JSON. It only reads.
func (c *coder) frame(num number, name string, p *[]byte) {
	switch {
	case !c.is(num, name, bytesType):
	case c.format == Protobuf:
		*p = c.at.value
	default:
		var s string
		c.readText(name, &s)
		*p = []byte(s)
	}
}
