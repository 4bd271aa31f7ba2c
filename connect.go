package channels

import (
	"context"
	"errors"
	"sync"

	"github.com/channels-go/channels/internal/clientproto"
	"github.com/channels-go/channels/internal/fanout"
)

// A session is a connection that speaks the client protocol: it has any number of
// subscriptions, and each of its commands has a reply. It knows nothing of what
// carries it: frames of commands come to take, and replies go to the client's outbox,
// in order with what is pushed.
//
// The reader's stack grows to the deepest call that it makes, and copying it costs more
// than a command. So connect and subscribe go through functions that keep little on
// the stack: 4 KiB are enough (bench's row client-connect).
//
// One goroutine at a time calls take, and what that calls, unless a comment says
// otherwise. A slow Store or hook holds up the commands of this session alone.
//
//	connect.go            this file: the way of a command
//	connect_hello.go      the first command, and who the client is
//	connect_subscribe.go  subscribing, and how subscriptions end
//	connect_pattern.go    subscribing to what a pattern matches
//	connect_rights.go     until when a subscription is allowed
//	connect_serverside.go the subscriptions that the app asks for
//	connect_publish.go    publish; connect_call.go the app's own methods
//	connect_read.go       presence and history
//	connect_codes.go      the protocol's words for errors and ends
//	connect_frame.go      what is pushed
//	connect_websocket.go  the first door
//	connect_stream.go     the doors for clients that can open no WebSocket
//	connect_emulation.go  how their commands come to the session
type session struct {
	client *client
	format clientproto.Format
	key    string // lets its client's requests in that come beside a stream, or ""

	tries     int             // how often it has said connect
	connected bool            // OnConnect has let it in
	known     bool            // the app's middleware says who the client is
	ctx       context.Context // of the app's code that commands call; set when connected

	// entering are the subscriptions that wait for the Store (connect_subscribe.go).
	entering sync.WaitGroup
	slots    chan struct{} // one for each of these; nil before the first

	mu      sync.Mutex // guards the fields below, and client.info.Identity
	hello   hello
	invited []*subscription // by the app, for the reply to connect: see invite
}

func (c *client) beginSession() {
	c.session = &session{client: c, format: formatOf(c.out.Format.Protobuf())}
}

// fill sets what Authorize is told of a session's client, and not of other connections,
// which are none yet when it is asked. It is not inlined into their way (Hub.route).
//
//go:noinline
func (s *session) fill(r *Request) { r.Identity, r.Client = s.identity(), s.client.info.ID }

func (s *session) identity() Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client.info.Identity
}

// frameLimits bound one frame. A client that reconnects subscribes to all its channels
// in one.
func (h *Hub) frameLimits() clientproto.Limits {
	most := h.opts.MaxSubscriptions
	return clientproto.Limits{Commands: max(1024, 2*most), Subs: most}
}

// take does what a frame of commands says. The caller then flushes the outbox. Only a
// panic in the app's code is an error: it ends the connection.
func (s *session) take(frame []byte) error {
	n := 0
	for cmd, err := range clientproto.Commands(frame, s.format, s.client.hub.frameLimits()) {
		if n++; n > 1 {
			s.client.out.Flush() // no reply waits for the next command
		}
		if cmd == nil {
			s.end(endBadRequest, errBadFrame.because(err))
			return nil
		}
		if err = s.command(cmd, err); err != nil {
			return err
		}
		if ended, _ := s.client.out.Ended(); ended { // it does no more
			return nil
		}
	}
	return nil
}

// command does what one command says. bad is what is wrong with its data.
func (s *session) command(cmd *clientproto.Command, bad error) error {
	if cmd.IsPong() { // it has shown that the client lives, by being read
		return nil
	}
	c, h := s.client, s.client.hub
	c.received.messages.Add(1)
	switch {
	case cmd.ID == 0 && cmd.Send == nil:
		s.end(endBadRequest, errBadFrame.saying("a command has no id"))
		return nil
	case s.connected == (cmd.Connect != nil):
		s.end(endBadRequest, errBadFrame.saying("the first command has to be connect, and only that"))
		return nil
	case !s.connected:
		h.clients.heard(c)
		var err error
		if s.tries++; s.tries > 1 { // the first time, the request for the connection was charged
			err = s.charge()
		}
		if err == nil {
			err = s.connect(cmd.ID, cmd.Connect, bad)
		}
		if err == nil {
			return nil
		}
		return s.keptOut(cmd.ID, err)
	}
	return s.obey(cmd, bad)
}

// obey does what a command of a connected client says.
func (s *session) obey(cmd *clientproto.Command, bad error) error {
	err := s.charge()
	if err == nil && bad != nil {
		err = ErrBadMessage.saying("%v", bad)
	}
	if cmd.Subscribe != nil && err == nil {
		return s.answered(cmd.ID, s.subscribe(cmd.ID, cmd.Subscribe))
	}
	s.entering.Wait() // what was asked for before
	if err != nil {
		return s.answered(cmd.ID, err)
	}
	if cmd.Send != nil {
		return s.send(cmd.Send)
	}
	return s.answered(cmd.ID, s.answer(cmd))
}

// charge is not inlined, since it has a copy of the Client.
//
//go:noinline
func (s *session) charge() error {
	c, ctx := s.client, s.ctx
	if ctx == nil { // it has not connected
		ctx = WithIdentity(c.hub.ctx, c.info.Identity)
	}
	return c.hub.charge(ctx, c.info)
}

// answer does what a command says that has an answer, and replies unless it fails.
func (s *session) answer(cmd *clientproto.Command) (err error) {
	r := clientproto.Reply{ID: cmd.ID}
	switch {
	case cmd.Publish != nil:
		err = s.publish(cmd.Publish, &r)
	case cmd.RPC != nil:
		err = s.rpc(cmd.RPC, &r)
	case cmd.Unsubscribe != nil:
		err = s.unsubscribe(cmd.Unsubscribe, &r)
	case cmd.Presence != nil:
		err = s.presence(cmd.Presence, &r)
	case cmd.PresenceStats != nil:
		err = s.presenceStats(cmd.PresenceStats, &r)
	case cmd.History != nil:
		err = s.history(cmd.History, &r)
	case cmd.Refresh != nil:
		err = s.refresh(cmd.Refresh, &r)
	case cmd.SubRefresh != nil:
		err = s.refreshSubscription(cmd.SubRefresh, &r)
	default:
		err = errUnserved
	}
	if err == nil {
		s.reply(&r)
	}
	return err
}

// errEnded says that a command has ended the session, so that there is no reply.
var errEnded = errors.New("channels: the session has ended")

// answered tells the client why a command failed, if it did. A panic of the app's code
// is returned, and ends the connection.
func (s *session) answered(id uint32, err error) error {
	switch {
	case err == nil, err == errEnded, id == 0:
		return nil
	case isPanic(err):
		return err
	}
	s.reply(&clientproto.Reply{ID: id, Error: replyError(err)})
	return nil
}

// reply queues a reply. A long one waits for room, and with it what the client sends
// next: who asks for much has to read it.
func (s *session) reply(r *clientproto.Reply) { s.queue(s.replyFrame(r)) }

// queue is reply for a frame. It may be called concurrently.
func (s *session) queue(f *fanout.Frame) {
	out := s.client.out
	if f.Size() < longReply {
		out.Queue(f, s.client.policy())
		return
	}
	s.queuePaced(f)
}

// queuePaced waits until there is room. The answers to a client that comes back may
// together be longer than its queue.
func (s *session) queuePaced(f *fanout.Frame) {
	out := s.client.out
	for !out.Offer(f) {
		out.Flush()
		if !out.WaitRoom(s.client.hub.ctx, f.Size()) {
			return // the connection has ended
		}
	}
}

// longReply is from when a reply is not one of the many small ones.
const longReply = 4 << 10

func (s *session) replyFrame(r *clientproto.Reply) *fanout.Frame {
	b := make([]byte, fanout.ReplyRoom, fanout.ReplyRoom+replySize(r))
	return fanout.NewReply(s.client.out.Format, clientproto.AppendReply(b, s.format, r))
}

// replySize is about how long a reply becomes.
func replySize(r *clientproto.Reply) int {
	const least = 64
	switch {
	case r.Connect != nil:
		n := 3*least + len(r.Connect.Client) + len(r.Connect.Node) + len(r.Connect.Data)
		for channel, sub := range r.Connect.Subs {
			n += 2*least + len(channel) + publicationsSize(sub.Publications)
		}
		return n
	case r.Subscribe != nil:
		return 2*least + publicationsSize(r.Subscribe.Publications)
	case r.History != nil:
		return 2*least + publicationsSize(r.History.Publications)
	case r.Presence != nil:
		return least + 3*least*len(r.Presence.Presence)
	case r.RPC != nil:
		return least + len(r.RPC.Data)
	case r.Error != nil:
		return least + len(r.Error.Message)
	}
	return least
}

func publicationsSize(ps []clientproto.Publication) (n int) {
	for i := range ps {
		n += 64 + len(ps[i].Data)
	}
	return n
}

// push sends what is not a channel's. It may be called concurrently.
func (s *session) push(p *clientproto.Push) {
	b := clientproto.AppendPush(make([]byte, fanout.ReplyRoom, fanout.ReplyRoom+128), s.format, p)
	s.client.answer(fanout.NewReply(s.client.out.Format, b))
}

// ping asks the client for a sign of life, and ends the session if it has given none
// since it was asked a period ago. pingSome calls it.
func (s *session) ping() {
	c := s.client
	if c.asked && !c.alive.Load() {
		s.end(endNoPong, errSilent)
		return
	}
	c.alive.Store(false)
	// A ping behind messages that wait may come too late to be asked for a sign of
	// life, but the client counts on it.
	if c.asked = c.out.SendIfIdle(fanout.Ping); !c.asked {
		c.out.Offer(fanout.Ping)
	}
}

// end ends the session. It may be called concurrently.
func (s *session) end(why closing, err error) { s.client.out.End(why.frames(), err, false) }
