// Package store defines what a hub keeps outside of one process's channels:
// the history of channels, the numbers of every replica, and who is present.
//
// [Memory] keeps it in this process. Package redisstore keeps it in Redis,
// so that several replicas of an app share it. A Store of your own passes
// the conformance suite in package storetest.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Store is what a hub needs. Its parts are independent of each other: an
// implementation may keep them in different places.
//
// Every method may be called by many goroutines at the same time, obeys its
// context's deadline, and returns [ErrClosed] after Close. A method that
// fails has either done nothing or all of what it was asked.
type Store interface {
	Log
	Registry
	Presence

	// Close frees what the Store itself has opened, never what its
	// constructor was given. A second Close does nothing and returns nil.
	Close() error
}

var (
	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("store: closed")
	// ErrUnavailable is wrapped by errors that may go away by themselves: a
	// server that cannot be reached, is failing over, or is out of memory.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrKeyReused is wrapped by Append's error where the key was used for
	// another message.
	ErrKeyReused = errors.New("store: the key was used for another message")
)

// Position is a place in a channel's log. Offsets count from 1 within an
// epoch, without gaps. An epoch names one life of a log: a log that was lost
// and begins anew has another epoch, and so has one that goes on after it may
// have lost its last entries: no Position ever means two messages. An epoch is
// 1 to 64 of A-Z, a-z, 0-9, "-", "_", "." and "~", since clients send it in
// URLs. The zero Position is before the first message of a log that does not
// exist yet.
type Position struct {
	Epoch  string
	Offset uint64
}

// Log keeps the last messages of each channel in one order.
//
// A log that has lost its last entries (a server came back with older data,
// another server took over) goes on under another epoch, before anything is
// appended at a lost offset. The log remembers which epochs it had before and
// up to which offset each is the same as the log now. Until that next Append,
// Range and Tops may show the lower top under the epoch before.
type Log interface {
	// Append adds e to the channel's log and returns its position; e.Offset
	// and e.Time are the Store's to set. Where o.Key was used for this
	// channel within o.KeyTTL, nothing is added: Append returns the position
	// that the key's first entry got, and true; or ErrKeyReused where
	// o.Digest is not the one of that first use.
	//
	// The log drops its oldest entries beyond o.Size, and entries older than
	// o.TTL. It remembers its epoch and last offset for at least MetaTTL
	// after the last Append, and after the last Tops that named it, also when
	// no entry is left.
	//
	// Append does not keep or change e.Body; the caller may reuse it. Limits
	// below those that AppendOptions names are an error.
	Append(ctx context.Context, channel string, e Entry, o AppendOptions) (pos Position, duplicate bool, err error)

	// Range reads a part of a channel's log. An absent log is not an error:
	// it is the zero Page. The caller owns what it gets.
	Range(ctx context.Context, channel string, q Query) (Page, error)

	// Tops returns the last position of each channel, in the order of the
	// names; for an absent log the zero Position. It is one round trip.
	Tops(ctx context.Context, channels []string) ([]Position, error)
}

// MetaTTL is the least time for which a log's epoch and last offset are
// remembered after its last Append, and after the last Tops that named it: a log
// with subscribers, which somebody asks for all the time, never ends.
const MetaTTL = 24 * time.Hour

// Entry is one message in a log.
type Entry struct {
	Offset uint64    // set by the Store
	Time   time.Time // when it was appended, by the Store's clock; millisecond precision
	Header string
	Body   json.RawMessage
}

// AppendOptions are the limits of the log that Append adds to.
type AppendOptions struct {
	Size   int           // how many entries the log keeps at the most; at least 1
	TTL    time.Duration // how long an entry is kept, those appended earlier too; at least 1 ms
	Key    string        // idempotency key; none where empty
	KeyTTL time.Duration // how long Key is remembered from its first use; at least 1 ms where Key is set
	Digest string        // with Key, what tells one message from another: any bytes, up to 64
}

// Query selects a part of a log: the entries with After < offset, and with
// offset < Before where Before is not 0. Limit bounds their number; a Limit
// of 0 asks only for the Page's positions. Entries always come in ascending
// order; where there are more than Limit, they are the first ones, or with
// Newest the last ones. MaxBytes bounds the sum of their headers and bodies
// in the same way, so that one page of long messages fits into memory; one
// entry comes in any case, however long. 0: no bound.
type Query struct {
	After    uint64
	Before   uint64
	Limit    int
	MaxBytes int
	Newest   bool
}

// Page is what a Range found.
type Page struct {
	Entries []Entry
	Top     Position // the log's last position
	First   uint64   // the offset of the oldest entry kept; Top.Offset+1 where none is; 0 for an absent log
	// Earlier are the epochs that the log had before, newest first, each with
	// the last offset that it has in common with the log now: up to there a
	// position means the same in both. At most 8; nil where it had none.
	Earlier []Position
}

// Registry holds what each replica reports of itself and of its channels.
type Registry interface {
	// Report records a replica's heartbeat, and the numbers of the channels
	// that changed since its last Report. It returns false where the Store
	// held no living record of the replica before, or an older one than it
	// has acknowledged: it then has only what this Report says, and where
	// that was not Full, the replica must report everything. What a replica reported (its presence too) leaves every
	// answer [DeadAfter] after its last Report; Replicas alone shows the dead
	// replica itself for longer.
	Report(ctx context.Context, r Report) (known bool, err error)

	// Forget removes a replica and all that it reported, at once. An unknown
	// replica is not an error.
	Forget(ctx context.Context, replica string) error

	// Replicas returns the replicas whose last Report is no older than
	// [ForgottenAfter], sorted by ID. The dead are among them: Silent tells.
	Replicas(ctx context.Context) ([]Replica, error)

	// Channels returns up to limit channels whose names begin with prefix
	// and are greater than after (in byte order), sorted by name, each with
	// the sum over all living replicas. Channels whose numbers are all zero
	// are left out.
	Channels(ctx context.Context, prefix, after string, limit int) ([]Count, error)

	// Channel returns one channel's sum over all living replicas. Nothing
	// reported is not an error: the numbers are zero.
	Channel(ctx context.Context, name string) (Count, error)
}

// DeadAfter is how long after its last Report a replica counts as dead.
const DeadAfter = 10 * time.Second

// ForgottenAfter is how long after its last Report Replicas still shows a
// replica, so that operators see which one has died.
const ForgottenAfter = time.Minute

// Report is what a replica says of itself.
type Report struct {
	Replica  Replica
	Channels []Count // of this replica alone; one whose numbers are zero is removed
	// Full says that Channels and Members are all that the replica has: what
	// it reported earlier of either is replaced, in one step.
	Full    bool
	Members []PresenceChange // with Full only
}

// Replica is one replica. Seen and Silent are set by the Store.
type Replica struct {
	ID      string
	Started time.Time
	Seen    time.Time // the last Report, by the Store's clock
	// Silent is how long ago the last Report was, by the Store's clock, when it
	// was asked: also where it takes no reports at all, e.g. since it is full.
	Silent time.Duration
	Info   json.RawMessage // what the hub tells of itself; the Store does not read it
}

// Count holds a channel's numbers.
type Count struct {
	Channel     string
	Subscribers int
	Publishes   int // in the last 60 seconds
}

// Presence holds who is subscribed to channels, by replica.
type Presence interface {
	// UpdatePresence applies changes in order. The members live as long as
	// the replica's reports; changes of a replica that has no living record,
	// or an older one than was acknowledged, are dropped without an error,
	// since that replica's next Report tells it to send everything again.
	UpdatePresence(ctx context.Context, replica string, changes []PresenceChange) error

	// Members returns up to limit members of a channel on all living
	// replicas, sorted by ID, and how many there are in all.
	Members(ctx context.Context, channel string, limit int) (members []Member, total int, err error)
}

// PresenceChange is one member that joined or left a channel.
type PresenceChange struct {
	Channel string
	Member  Member
	Left    bool // then only Member.ID counts
}

// Member is one connection that is subscribed to a channel.
type Member struct {
	ID   string          `json:"id"`             // the connection's id, unique over all replicas
	User string          `json:"user,omitempty"` // the identity's id
	Info json.RawMessage `json:"info,omitempty"` // what the identity tells others
}
