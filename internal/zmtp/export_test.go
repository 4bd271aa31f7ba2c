package zmtp

import "net"

// ShakenGuard is a guard after the handshake.
func ShakenGuard(c net.Conn, limits Limits, ping func([]byte)) *Guard {
	g := NewGuard(c, Rules{Mechanism: "TEST", Limits: limits, Buffer: 64 << 10, Ping: ping})
	g.greeted = true
	g.endShake()
	g.below.SetStall(StallTimeout)
	return g
}

// Origins is how many addresses the crowd knows.
func (w *Crowd[C]) Origins() int { return len(w.from) }
