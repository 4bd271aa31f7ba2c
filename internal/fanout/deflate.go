package fanout

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"sync"
)

var flaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // the level is valid
	return w
}}

// deflate compresses a text of the frame for permessage-deflate without context takeover
// (RFC 7692 section 7.2.1). It returns the plain WebSocket frame if that is not longer.
func (f *Frame) deflate(text, plain []byte) []byte {
	f.Group.engine.Deflated.Add(1)
	var out bytes.Buffer
	out.Grow(HeaderRoom + len(text)/2)
	out.Write(make([]byte, HeaderRoom))
	w := flaters.Get().(*flate.Writer)
	defer flaters.Put(w)
	w.Reset(&out)
	_, err := w.Write(text)
	if err = errors.Join(err, w.Flush()); err != nil {
		return plain // a Buffer does not fail
	}
	b := bytes.TrimSuffix(out.Bytes(), []byte("\x00\x00\xff\xff"))
	if len(b)-HeaderRoom >= len(text) {
		return plain
	}
	_, b = putHeader(b, opText|rsv1)
	w.Reset(io.Discard)
	return b
}
