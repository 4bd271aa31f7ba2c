package channels

import (
	"bytes"
	"encoding/json"
)

// HTML returns a body with a piece of a page, such as a template has rendered. It is a
// JSON string; an event stream with format=event sends its text as it is. Whoever may
// publish on such a channel decides what stands in its readers' pages, so only the
// server should: see [PublishersServer].
func HTML(s string) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // a third of the length
	e.Encode(s)            // a string cannot fail
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
