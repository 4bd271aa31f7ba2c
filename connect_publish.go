package channels

import (
	"bytes"
	"encoding/json"

	"github.com/channels-go/channels/internal/clientproto"
)

// publish answers a publish: the data is the message's body.
func (s *session) publish(r *clientproto.PublishRequest, reply *clientproto.Reply) error {
	if r.Type != 0 {
		return errUnserved
	}
	var res Result
	body, err := checkBody(r.Data, s.client.hub.opts.MaxMessageBytes)
	if err == nil {
		res, err = s.publishOn(r.Channel, Message{Header: defaultHeader, Body: body}, PublishOptions{})
	}
	if s.notePublish(res.Duplicate, err); err != nil {
		return err
	}
	reply.Publish = &clientproto.PublishResult{}
	return nil
}

// notePublish counts what became of a message.
func (s *session) notePublish(duplicate bool, err error) {
	s.client.hub.stats.publishes[s.client.door()].note(duplicate, err)
}

func (s *session) publishOn(channel string, m Message, o PublishOptions) (Result, error) {
	c := s.client
	if c.hub.opts.OnPublish != nil { // which may keep the body
		m.Body = bytes.Clone(m.Body)
	}
	return c.hub.publish(s.ctx, Publication{
		Channel: channel, Message: m, Identity: c.info.Identity, Client: c.info.ID, Network: true,
	}, o)
}

// publishCall answers the method publish, which has everything that publishing has:
// {"channel":…,"header":…,"body":…,"key":…,"local":…}.
func (s *session) publishCall(data []byte) (json.RawMessage, error) {
	res, err := s.publishData(data)
	if s.notePublish(res.Duplicate, err); err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Offset    uint64 `json:"offset,omitempty"`
		Epoch     string `json:"epoch,omitempty"`
		Duplicate bool   `json:"duplicate,omitempty"`
	}{res.Position.Offset, res.Position.Epoch, res.Duplicate})
}

// publishData publishes what a publishCall says.
func (s *session) publishData(data []byte) (res Result, err error) {
	if err := checkObject(data); err != nil {
		return res, err
	}
	var in rawMessage
	if err := in.read(data); err != nil {
		return res, err
	}
	var channel string
	if len(in.channel) > longestString(MaxNameBytes) || json.Unmarshal(in.channel, &channel) != nil {
		return res, ErrBadChannel
	}
	if in.header == nil {
		in.header = json.RawMessage(`"` + defaultHeader + `"`)
	}
	m, o, err := in.parse(s.client.hub.opts.MaxMessageBytes)
	if err != nil {
		return res, err
	}
	if in.local != nil && json.Unmarshal(in.local, &o.Local) != nil {
		return res, ErrBadMessage.saying("local has to be true or false")
	}
	return s.publishOn(channel, m, o)
}
