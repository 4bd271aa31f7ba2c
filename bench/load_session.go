package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// session returns the options of a connection that speaks the client protocol, and
// subscribes to channels, each "NAME", or "NAME OFFSET EPOCH" to recover from there.
func session(channels ...string) dialOptions {
	o := dialOptions{path: "/connection/websocket", subscribes: make([]string, len(channels))}
	for i, s := range channels {
		var name, epoch string
		var offset uint64
		if n, _ := fmt.Sscan(s, &name, &offset, &epoch); n == 3 {
			o.subscribes[i] = fmt.Sprintf(`{"channel":%q,"recover":true,"offset":%d,"epoch":%q}`, name, offset, epoch)
			continue
		}
		o.subscribes[i] = fmt.Sprintf(`{"channel":%q}`, s)
	}
	return o
}

// introduce sends connect and, once that is answered, all subscribes in one frame, as
// SDKs do. It returns when all are answered. The replies bring as many recovered
// messages as o wants.
func introduce(nc net.Conn, r *bufio.Reader, o dialOptions) error {
	if _, err := await(nc, r, `{"id":1,"connect":{}}`, 1); err != nil {
		return err
	}
	var s strings.Builder
	for i, body := range o.subscribes {
		if i > 0 {
			s.WriteByte('\n')
		}
		s.WriteString(`{"id":` + strconv.Itoa(2+i) + `,"subscribe":` + body + `}`)
	}
	recovered, err := await(nc, r, s.String(), len(o.subscribes))
	if err == nil && recovered != o.missed {
		err = fmt.Errorf("%d messages were recovered, %d were missed", recovered, o.missed)
	}
	return err
}

// await sends a frame, and reads until n replies have come. It returns how many
// messages are in them.
func await(nc net.Conn, r *bufio.Reader, commands string, n int) (messages int, err error) {
	if _, err := nc.Write(masked(0x81, commands)); err != nil {
		return 0, err
	}
	for n > 0 {
		replies, err := readFrame(r)
		if err != nil {
			return 0, err
		}
		for line := range bytes.Lines(replies) {
			switch {
			case bytes.Contains(line, []byte(`"error":`)):
				return 0, fmt.Errorf("refused: %s", line)
			case bytes.HasPrefix(line, []byte(`{"id":`)):
				messages += bytes.Count(line, stamp)
				n--
			case bytes.Contains(line, stamp):
				return 0, fmt.Errorf("a message before all subscriptions: %s", line)
			}
		}
	}
	return messages, nil
}

// masked returns a client's frame of up to 64 KiB, masked with zeroes.
func masked(first byte, payload string) []byte {
	b := append(make([]byte, 0, len(payload)+8), first)
	if len(payload) < 126 {
		b = append(b, 0x80|byte(len(payload)))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(len(payload)))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// readFrame returns the text of the next frame.
func readFrame(r *bufio.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return nil, err
	}
	n := int(head[1])
	if n == 126 {
		if _, err := io.ReadFull(r, head[2:]); err != nil {
			return nil, err
		}
		n = int(binary.BigEndian.Uint16(head[2:]))
	}
	if head[0] != 0x81 || n > 0xffff {
		return nil, fmt.Errorf("an unexpected frame (% x)", head)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}
