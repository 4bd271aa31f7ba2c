package channels

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/channels-go/channels/internal/answer"
)

// servePublish is POST /v1/channel/{name}/publish.
func (h *Hub) servePublish(w http.ResponseWriter, r *http.Request, name string, _ url.Values) error {
	res, err := h.publishBody(w, r, name)
	h.stats.publishes[doorHTTP].note(res.Duplicate, err)
	if err != nil {
		return err
	}
	sendJSON(w, http.StatusOK, append(appendPublished(make([]byte, 0, 96), "status", res), '\n'), h.opts.WriteTimeout, boundAnswer)
	return nil
}

// publishBody publishes the message that is a request's body.
func (h *Hub) publishBody(w http.ResponseWriter, r *http.Request, name string) (res Result, err error) {
	key, err := keyOf(r)
	if err != nil {
		return res, err
	}
	if err := h.chargeHTTP(r); err != nil {
		return res, err
	}
	// A client that may not publish is refused before its body is read.
	opts, err := h.optionsOf(name)
	if err != nil {
		return res, err
	}
	id, _ := IdentityFrom(r.Context())
	p := Publication{Channel: name, Identity: id, Network: true, allowed: true}
	if err := h.mayPublish(r.Context(), &opts, &p); err != nil {
		return res, err
	}
	err = h.body(w, r, h.opts.MaxMessageBytes+envelopeBytes, func(b []byte) error {
		if err := checkObject(b); err != nil {
			return err
		}
		var in rawMessage
		if err := in.read(b); err != nil {
			return err
		}
		var o PublishOptions
		var err error
		p.Message, o, err = in.parse(h.opts.MaxMessageBytes)
		if err == nil && o.Key != "" && key != "" {
			return ErrBadKey.saying("there is an Idempotency-Key in the header and a key in the body; give only one")
		}
		key = cmp.Or(key, o.Key)
		return err
	})
	if err != nil {
		return res, err
	}
	return h.publish(r.Context(), p, PublishOptions{Key: key})
}

func keyOf(r *http.Request) (string, error) {
	v := r.Header.Values("Idempotency-Key")
	if len(v) > 1 || len(v) == 1 && v[0] == "" {
		return "", ErrBadKey.saying("there has to be one Idempotency-Key of 1 to 200 characters, or none")
	}
	return r.Header.Get("Idempotency-Key"), nil
}

// appendPublished appends the answer to a publish: {"status":"ok"} or {"msg":"ok"},
// with what there is to tell of the result.
func appendPublished(b []byte, name string, res Result) []byte {
	b = append(append(append(b, `{"`...), name...), `":"ok"`...)
	if p := res.Position; p.Offset > 0 {
		b = append(b, `,"offset":`...)
		b = strconv.AppendUint(b, p.Offset, 10)
		b = append(b, `,"epoch":`...)
		b = appendString(b, p.Epoch)
	}
	if res.Duplicate {
		b = append(b, `,"duplicate":true`...)
	}
	return append(b, '}')
}

// maxBatch is how many messages one POST /v1/publish may publish.
const maxBatch = 1000

// servePublishMany is POST /v1/publish: {"channels":[…],"header","body","key"}
// or {"messages":[{"channel","header","body","key"},…]}.
func (h *Hub) servePublishMany(w http.ResponseWriter, r *http.Request, _ string, _ url.Values) error {
	batch, err := h.readBatch(w, r)
	if err != nil {
		h.stats.publishes[doorHTTP].note(false, err) // once, since nobody knows how many it would have been
		return err
	}
	id, _ := IdentityFrom(r.Context())
	for i := 1; i < len(batch); i++ { // readBatch has charged the first
		if err := h.chargeHTTP(r); err != nil {
			batch[i].wrong = err
		}
	}
	published := h.publishBatch(doorHTTP, len(batch), func(i int) string { return batch[i].name }, func(i int) (Result, error) {
		if err := batch[i].wrong; err != nil {
			return Result{}, err
		}
		m, o, err := batch[i].raw.parse(h.opts.MaxMessageBytes)
		if err != nil {
			return Result{}, err
		}
		return h.publish(r.Context(), Publication{Channel: batch[i].name, Message: m, Identity: id, Network: true}, o)
	})
	all := struct {
		Status  string             `json:"status"`
		Results []answer.Published `json:"results"`
	}{Status: "ok"}
	for i, one := range published {
		a := answer.Published{Status: "ok", Offset: one.Position.Offset, Epoch: one.Position.Epoch, Duplicate: one.Duplicate}
		if one.Err != nil {
			e := visible(one.Err, ErrInternal)
			a, all.Status = answer.Refused(e.Code, e.Message), "fail"
		}
		if a.Channel = batch[i].name; len(a.Channel) > MaxNameBytes { // not a valid name; escaped, it could be six times as long
			a.Channel = clip(a.Channel)
		}
		all.Results = append(all.Results, a)
	}
	return h.writeJSON(w, all)
}

// readBatch reads the body of a POST /v1/publish.
func (h *Hub) readBatch(w http.ResponseWriter, r *http.Request) ([]batched, error) {
	if err := h.chargeHTTP(r); err != nil { // for its first message
		return nil, err
	}
	if len(r.Header.Values("Idempotency-Key")) > 0 {
		return nil, ErrBadKey.saying(`the Idempotency-Key header is for a single message; give each entry of "messages" its own "key"`)
	}
	var b []byte
	bound := min(h.opts.batchBytes(), h.opts.MaxUnfinishedBytes/2)
	err := h.body(w, r, bound, func(read []byte) error {
		if err := checkObject(read); err != nil {
			return err
		}
		b = bytes.Clone(read)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return parseBatch(b, bound)
}

// batched is one message of a batch.
type batched struct {
	name  string // of its channel
	raw   *rawMessage
	wrong error // why it cannot be published, as far as that is known
}

// parseBatch reads valid JSON. The messages share memory with b.
func parseBatch(b []byte, bound int) ([]batched, error) {
	var in rawMessage
	if err := in.read(b); err != nil {
		return nil, err
	}
	if tooMany(in.channels) || tooMany(in.messages) {
		return nil, errTooMany
	}
	var names []string
	var messages []json.RawMessage
	if in.channels != nil && json.Unmarshal(in.channels, &names) != nil {
		return nil, ErrBadMessage.saying(`"channels" has a JSON value of the wrong type; it must be an array of names`)
	}
	if in.messages != nil && json.Unmarshal(in.messages, &messages) != nil {
		return nil, ErrBadMessage.saying(`"messages" has a JSON value of the wrong type; it must be an array of objects`)
	}
	switch many := len(messages) > 0; {
	case many && (in.channels != nil || in.channel != nil || in.header != nil || in.body != nil || in.key != nil):
		return nil, ErrBadMessage.saying(`give either "messages", each with its own channel, header, body and key, or "channels" with "header", "body" and "key"`)
	case !many && len(names) == 0:
		return nil, ErrBadMessage.saying(`give "channels" with "header" and "body", or "messages", with 1 to %d entries`, maxBatch)
	case len(names) > maxBatch || len(messages) > maxBatch:
		return nil, errTooMany
	case len(names)*(len(in.header)+len(in.body)) > bound:
		// The message counts once for each channel: the Store may have to keep them all.
		return nil, ErrTooLarge.saying("one request publishes at most %d bytes; this message has %d for each of %d channels: publish it to fewer at once",
			bound, len(in.header)+len(in.body), len(names))
	}
	batch := make([]batched, 0, len(names)+len(messages))
	for _, name := range names {
		batch = append(batch, batched{name: name, raw: &in})
	}
	for _, b := range messages {
		one := batched{raw: new(rawMessage)}
		if b[0] != '{' {
			return nil, ErrBadMessage.saying(`"messages" has a JSON value of the wrong type; it must be an array of objects`)
		}
		one.wrong = one.raw.read(b)
		if ch := one.raw.channel; ch != nil && json.Unmarshal(ch, &one.name) != nil {
			return nil, ErrBadMessage.saying(`"channel" has a JSON value of the wrong type; it must be a name`)
		}
		batch = append(batch, one)
	}
	return batch, nil
}

var errTooMany = ErrTooLarge.saying("one request publishes at most %d messages; send the others in another request", maxBatch)

// tooMany counts the entries of a list before they are parsed. An empty entry
// is sent in three bytes, but takes far more memory.
func tooMany(list json.RawMessage) bool {
	n := 0
	gjson.ParseBytes(list).ForEach(func(_, _ gjson.Result) bool { n++; return n <= maxBatch })
	return n > maxBatch
}
