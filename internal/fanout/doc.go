// Package fanout sends one message to many receivers: it is encoded once for
// each wire format, queued for each receiver, and written in as few writes as
// possible. Nobody who sends waits for a receiver.
//
//   - A [Frame] is one thing to be written. It is encoded once, and the same
//     bytes go to all.
//   - An [Outbox] is the bounded queue of one receiver. If it is full, a
//     [Policy] decides.
//   - A [Socket] is an Outbox that is written to a WebSocket's connection. The
//     few goroutines of the [Engine] write to most sockets; only a client that
//     does not keep up, and a connection over TLS, has a goroutine for as long
//     as something waits for it.
//   - Receivers of other kinds own an Outbox and drain it themselves: see
//     [Outbox.Take] and [Outbox.Next].
//
// An Engine has what its outboxes share: the limits, the writers, and the
// counters.
//
// The way of a frame: a [Cast] puts it into the outboxes (cast.go, outbox.go). If
// one is full, its Policy makes room or ends it (policy.go). An outbox that was
// empty wakes its [Owner]; for a socket this queues it for a writer (socket.go),
// to which a Cast hands some at a time. The writer takes all that waits, joins the
// frames (outbox.go, joined.go; frame.go encodes each of them once, page.go those
// for pages) and writes them at once (writer.go).
//
// A socket's reader needs no goroutine while nothing comes (rest.go), and is not woken for
// a pong alone (muffle.go).
//
// No two locks of this package are held at the same time, and no method of an
// [Owner] is called with one of them held.
package fanout
