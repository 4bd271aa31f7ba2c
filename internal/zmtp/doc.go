// Package zmtp holds what every endpoint here needs to speak ZMTP, ZeroMQ's
// wire protocol, with peers that are not trusted. The protocol is ZMTP 3.0
// (https://rfc.zeromq.org/spec/23/); of ZMTP 3.1
// (https://rfc.zeromq.org/spec/37/) it knows the SUBSCRIBE and CANCEL commands.
//
// A [Listener] accepts connections and bounds how many may still be in their
// handshake, using a [Crowd]. A [Guard] checks the header of each frame before
// github.com/go-zeromq/zmq4 reads it. [Dial] connects, also over TLS. An
// [Address] is tcp://HOST:PORT as ZeroMQ's guides write it.
//
// Of the library, only its connections are used: its sockets stall or panic if
// a peer misbehaves.
package zmtp
