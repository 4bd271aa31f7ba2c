// Package answer has the JSON that answers the same questions over HTTP and over
// ZeroMQ.
package answer

// Error is why something was refused.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Published answers a publish, and refuses any question.
type Published struct {
	Status    string `json:"status"`            // "ok" or "fail"
	Channel   string `json:"channel,omitempty"` // of one message of a batch
	Offset    uint64 `json:"offset,omitempty"`
	Epoch     string `json:"epoch,omitempty"`
	Duplicate bool   `json:"duplicate,omitempty"` // its idempotency key was seen before
	Error     *Error `json:"error,omitempty"`
}

// Refused answers a question that was refused.
func Refused(code, message string) Published {
	return Published{Status: "fail", Error: &Error{code, message}}
}

// List is a page of the list of channels.
type List struct {
	Data []Channel `json:"data"`
	Next string    `json:"next"`
}

// One is a single channel.
type One struct {
	Data Channel `json:"data"`
}

// Channel is a channel with its numbers, and in One with its history's position,
// if it has one.
type Channel struct {
	Name   string  `json:"channel_name"`
	Cnt    int     `json:"cnt"`
	RPM    int     `json:"rpm"`
	Offset *uint64 `json:"offset,omitempty"`
	Epoch  *string `json:"epoch,omitempty"`
	First  *uint64 `json:"first,omitempty"`
}
