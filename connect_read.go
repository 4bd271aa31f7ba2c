package channels

import (
	"slices"

	"github.com/channels-go/channels/internal/clientproto"
)

// members asks who is in a channel.
func (s *session) members(channel string) (Members, error) {
	c := s.client
	if isPattern(channel) {
		return Members{}, ErrNoPresence.saying("a pattern has no presence; ask for that of a channel")
	}
	if err := c.hub.authorize(s.ctx, Request{Action: ActionPresence, Channel: channel, Identity: c.info.Identity, Client: c.info.ID}); err != nil {
		return Members{}, err
	}
	return c.hub.Presence(s.ctx, channel, 0)
}

func (s *session) presence(r *clientproto.PresenceRequest, reply *clientproto.Reply) error {
	ms, err := s.members(r.Channel)
	if err != nil {
		return err
	}
	who := make(map[string]*clientproto.ClientInfo, len(ms.Members))
	for i := range ms.Members {
		who[ms.Members[i].ID] = memberInfo(&ms.Members[i])
	}
	reply.Presence = &clientproto.PresenceResult{Presence: who}
	return nil
}

func (s *session) presenceStats(r *clientproto.PresenceStatsRequest, reply *clientproto.Reply) error {
	ms, err := s.members(r.Channel)
	if err != nil {
		return err
	}
	users := make(map[string]struct{})
	for i := range ms.Members {
		users[ms.Members[i].User] = struct{}{}
	}
	reply.PresenceStats = &clientproto.PresenceStatsResult{NumClients: uint32(ms.Total), NumUsers: uint32(len(users))}
	return nil
}

// history answers with what a channel keeps: after a position, or in reverse before
// it; without one, from the oldest message on, or in reverse from the newest.
func (s *session) history(r *clientproto.HistoryRequest, reply *clientproto.Reply) error {
	c, h := s.client, s.client.hub
	if isPattern(r.Channel) {
		return ErrNoHistory.saying("a pattern has no history; ask for that of a channel")
	}
	if err := h.authorize(s.ctx, Request{Action: ActionHistory, Channel: r.Channel, Identity: c.info.Identity, Client: c.info.ID}); err != nil {
		return err
	}
	q := HistoryQuery{Limit: int(r.Limit)}
	if r.Limit < 0 || q.Limit > maxListLimit {
		q.Limit = maxListLimit
	}
	if r.Limit == 0 { // only the position is asked for
		q.Limit = 1
	}
	switch {
	case r.Since == nil && !r.Reverse:
		q.Since = &Position{}
	case r.Since == nil:
	case r.Reverse:
		q.Before = r.Since.Offset
	default:
		q.Since = &Position{Epoch: r.Since.Epoch, Offset: r.Since.Offset}
	}
	res, err := h.History(s.ctx, r.Channel, q)
	if err != nil {
		return err
	}
	if at := r.Since; at != nil && (res.Missed || at.Epoch != res.Position.Epoch && *at != clientproto.StreamPosition{}) {
		return errUnrecoverable
	}
	result := clientproto.HistoryResult{Epoch: res.Position.Epoch, Offset: res.Position.Offset}
	if r.Limit != 0 && !(r.Reverse && r.Since != nil && r.Since.Offset <= 1) {
		result.Publications = publications(res.Messages)
		if r.Reverse {
			slices.Reverse(result.Publications)
		}
	}
	reply.History = &result
	return nil
}
