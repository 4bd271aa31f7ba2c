package fanout

// joinedBytes bounds the text of several frames in one.
const joinedBytes = 16 << 10

// appendJoined appends frames, and makes one WebSocket frame of texts that follow each
// other, each on a line of its own. To a browser, a frame costs far more than what
// stands in it.
func appendJoined(b []byte, as Format, frames []*Frame) []byte {
	for len(frames) > 0 {
		n, size := 0, 0
		for ; n < len(frames); n++ {
			text := textOf(frames[n].Bytes(as))
			if text == nil || n > 0 && size+len(text) > joinedBytes {
				break
			}
			size += len(text) + 1
		}
		if n == 0 {
			b = append(b, frames[0].Bytes(as)...)
			frames = frames[1:]
			continue
		}
		b = appendHeader(b, opText, size-1)
		for i, f := range frames[:n] {
			if i > 0 {
				b = append(b, '\n')
			}
			b = append(b, textOf(f.Bytes(as))...)
		}
		frames = frames[n:]
	}
	return b
}

// textOf returns the text of a WebSocket frame that is nothing else, or nil.
func textOf(frame []byte) []byte {
	if len(frame) < 2 || frame[0] != opText {
		return nil
	}
	switch frame[1] {
	case 127:
		return frame[10:]
	case 126:
		return frame[4:]
	}
	return frame[2:]
}
