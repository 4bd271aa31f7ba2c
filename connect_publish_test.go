package channels_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/clientproto"
)

func TestPublishOverASession(t *testing.T) {
	hub := newHub(t, channels.Options{
		MaxMessageBytes: 1 << 10,
		Channel:         named(map[string]channels.ChannelOptions{"server": {Publishers: channels.PublishersServer}}),
		Authorize:       forbids("forbidden"),
		OnPublish: func(ctx context.Context, p *channels.Publication) error {
			if p.Channel == "odd" {
				return errors.New("this is logged")
			}
			id, _ := channels.IdentityFrom(ctx)
			require.Equal(t, "ann", id.ID)
			require.Equal(t, "ann", p.Identity.ID)
			require.True(t, p.Network)
			return nil
		},
	})
	sub, err := hub.Subscribe(ctxT(t), "a", nil)
	require.NoError(t, err)
	c := hello(t, hub, "ann")
	c.send(`{"id":2,"publish":{"channel":"a","data":{"x":[1, 2]}}}`)
	require.Equal(t, `{"id":2,"publish":{}}`, c.next())
	for m, err := range sub.Messages() {
		require.NoError(t, err)
		require.Equal(t, "message", m.Header)
		require.Equal(t, `{"x":[1, 2]}`, string(m.Body))
		break
	}
	c.refused(107, `"publish":{"channel":"a"}`)
	c.refused(107, `"publish":{"channel":"a b","data":1}`)
	c.refused(107, `"publish":{"channel":"a","data":"`+long(1<<10)+`"}`)
	c.refused(107, `"publish":{"channel":"a","data":`+deep(501)+`}`)
	c.refused(103, `"publish":{"channel":"forbidden","data":1}`)
	c.refused(103, `"publish":{"channel":"server","data":1}`)
	c.refused(103, `"publish":{"channel":"odd","data":1}`)
	c.refused(108, `"publish":{"channel":"a","data":1,"type":1}`)
}

// Data that is not JSON is the fault of one command, and not of the connection.
func TestPublishNoJSONOverProtobuf(t *testing.T) {
	s := serve(t, channels.Options{})
	c := s.protobufSession()
	require.NotNil(t, c.ask(&clientproto.Command{ID: 1, Connect: &clientproto.ConnectRequest{}}).Connect)
	c.Send(wsFrame(finBit|opBinary, "\x0b\x08\x02\x3a\x07\x0a\x01a\x12\x02{{"))
	r := c.next()
	require.EqualValues(t, 2, r.ID)
	require.EqualValues(t, 107, r.Error.Code)
	require.Contains(t, r.Error.Message, "JSON")
	require.NotNil(t, c.ask(&clientproto.Command{ID: 3, Publish: &clientproto.PublishRequest{Channel: "a", Data: []byte("1")}}).Publish)
}

func TestPublishCall(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: func(name string) channels.ChannelOptions {
		if name == "h" {
			return channels.ChannelOptions{HistorySize: 10}
		}
		return channels.ChannelOptions{}
	}})
	c := subscribedTo(t, hub, "ann", "h")
	info := `"info":{"user":"ann","client":"` + c.ID() + `"}`
	call := func(data string) { c.send(`{"id":2,"rpc":{"method":"publish","data":` + data + `}}`) }
	var got struct {
		RPC struct {
			Data struct {
				Offset    uint64
				Epoch     string
				Duplicate bool
			}
		}
	}
	for i := range 2 {
		call(`{"channel":"h","header":"x","body":[1],"key":"k"}`)
		if i == 0 {
			require.Equal(t, `{"push":{"channel":"h","pub":{"data":[1],`+info+`,"offset":1,"tags":{"header":"x"}}}}`, c.next())
		}
		require.NoError(t, json.Unmarshal([]byte(c.next()), &got))
		require.EqualValues(t, 1, got.RPC.Data.Offset)
		require.NotEmpty(t, got.RPC.Data.Epoch)
		require.Equal(t, i == 1, got.RPC.Data.Duplicate)
	}
	call(`{"channel":"h","body":2,"local":true}`)
	require.Equal(t, `{"push":{"channel":"h","pub":{"data":2,`+info+`}}}`, c.next())
	require.Equal(t, `{"id":2,"rpc":{"data":{}}}`, c.next())
	for _, data := range []string{`{"channel":"h"}`, `{"body":1}`, `[]`, `{"channel":1,"body":1}`, `{"channel":"h","body":1,"header":"error"}`,
		`{"channel":"h","body":1,"local":"yes"}`, `{"channel":"h","body":2,"header":"x","key":""}`, `null`} {
		c.refused(107, `"rpc":{"method":"publish","data":`+data+`}`)
	}
	c.refused(108, `"rpc":{"method":"publish","data":{"channel":"a","body":1,"key":"k"}}`)
	require.Len(t, historyOf(t, hub, "h", channels.HistoryQuery{}).Messages, 1)
}

func TestCommandsAreCharged(t *testing.T) {
	hub := newHub(t, channels.Options{OnReceive: func(_ context.Context, c channels.Client) error {
		return &channels.Error{Code: "rate_limited", Status: 429, Message: "too often"}
	}})
	c := hello(t, hub, "ann")
	for _, request := range []string{`"publish":{"channel":"a","data":1}`, `"subscribe":{"channel":"a"}`, `"history":{"channel":"a"}`} {
		c.send(`{"id":2,` + request + `}`)
		require.Equal(t, `{"id":2,"error":{"code":111,"message":"too often","temporary":true}}`, c.next())
	}
}
