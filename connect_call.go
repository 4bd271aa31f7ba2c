package channels

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"github.com/channels-go/channels/internal/clientproto"
)

// A Call is what a client asks the app for, by a method of the app's own, over a
// connection of the client protocol.
type Call struct {
	Client Client
	Method string          // empty if the client named none
	Data   json.RawMessage // any JSON; nil if the client sent none
	OneWay bool            // the client sent it without waiting: the result is dropped
}

// methodPublish is the hub's own method.
const methodPublish = "publish"

// rpc answers a call.
func (s *session) rpc(r *clientproto.RPCRequest, reply *clientproto.Reply) (err error) {
	var result json.RawMessage
	if r.Method == methodPublish {
		result, err = s.publishCall(r.Data)
	} else {
		result, err = s.call(r.Method, r.Data, false)
	}
	if err != nil {
		return err
	}
	if len(result) == 0 {
		result = json.RawMessage("null")
	}
	reply.RPC = &clientproto.RPCResult{Data: result}
	return nil
}

// send does what a client asks for without waiting for an answer. A server that takes
// no such thing ends the session, since the client cannot be told in another way.
func (s *session) send(r *clientproto.SendRequest) error {
	_, err := s.call("", r.Data, true)
	switch {
	case err == errUnserved:
		s.end(endNotAvailable, err)
	case isPanic(err):
		return err
	}
	return nil
}

func (s *session) call(method string, data []byte, oneWay bool) (result json.RawMessage, err error) {
	c, h := s.client, s.client.hub
	if h.opts.OnCall == nil {
		return nil, errUnserved
	}
	if !h.calls.Enter() { // Shutdown waits for it
		return nil, ErrClosed
	}
	defer h.calls.Leave()
	call := Call{Client: c.info, Method: method, Data: bytes.Clone(data), OneWay: oneWay}
	err = h.guard("OnCall", func() (err error) {
		result, err = h.opts.OnCall(s.ctx, call)
		return err
	})
	if err != nil {
		return nil, h.refusal("OnCall", err)
	}
	if len(result) > 0 && !(json.Valid(result) && utf8.Valid(result)) { // a browser would end the connection
		h.log.Error("OnCall returned what is not JSON in UTF-8", "method", method)
		return nil, ErrInternal
	}
	return result, nil
}
