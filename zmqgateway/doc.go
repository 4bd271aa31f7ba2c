// Package zmqgateway lets ZeroMQ programs in any language read from a hub and
// publish on it, with ordinary sockets that connect to a [Gateway]:
//
//	g, err := zmqgateway.New(zmqgateway.Options{Hub: hub, Pub: "tcp://127.0.0.1:10022"})
//	…
//	defer g.Close() // before the hub's Shutdown
//
// A gateway is not a mesh. Each replica may have a gateway, with any mesh or none.
//
// # Messages
//
// A message has three frames: the channel and a zero byte; the header in
// Latin-1; the body as JSON. In what goes out, "?" stands for each character of
// the header that Latin-1 does not have, and everything above U+007F in the body
// is escaped, so that it is ASCII. What comes in may have the body in UTF-8, and
// may leave out the zero byte. If there is a token, it is a fourth frame.
//
// # SUB sockets
//
// A SUB socket subscribes to "news\0" for that channel, to "news" for all
// channels that begin so, and to "" for all. Delivery is at most once: a
// subscriber that reads too slowly loses messages. A channel asked for by its
// whole name comes in the order of its history. What matches only a beginning
// comes as it arrives, from all replicas. A reader that changes between the two
// ways on one channel, as by adding "news\0" to "news", may miss messages of that
// moment or get some of them twice, because the two are not equally fast.
//
// Readers that speak ZMTP 3.1, as those of libzmq 4.3 do, or that send heartbeats
// themselves, get a PING every 30 seconds, with a time to live of 90. A reader
// that says nothing for that long, although nothing waits to be sent to it, is
// disconnected: its program was stopped, or has gone and left a proxy behind.
//
// CONFLATE does not work with messages of several frames: a reader with it gets
// nothing, or bodies without a topic, and a PUSH socket with it is refused. Read
// until nothing waits, and keep the last message.
//
// # PUSH, REQ and DEALER sockets
//
// PUSH sockets publish without an answer. REQ and DEALER sockets send requests:
//
//	["publish", channel, header, body]
//	["list", prefix, limit, cursor]    where all but "list" may be left out
//	["channel", name]
//
// The answer is one frame of JSON in ASCII, the same as over HTTP.
//
// # How long a gateway waits
//
//	a handshake                     5 s                      closed and counted
//	a message, from its first byte  30 s, + 1 s per 64 KiB   disconnected
//	room for a large message        1 s + 1 s per MiB of     they are disconnected
//	                                those before it
//	a write, for any progress       3 s, or a quarter more   disconnected; it connects again
//	a silent connection             TCP's keepalive          and it makes way for newcomers
//	a reader's answer to PING       90 s (one every 30 s)    disconnected, unless something waits for it
//	the hub, for a message          the hub's own bounds     an answer that says so
//	Close, for readers              1 s                      disconnected
//
// No lock is held meanwhile. Between messages programs may be silent for as long
// as they like.
package zmqgateway
