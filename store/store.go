// Package store defines what replicas of an app keep outside their own memory:
// the history of channels, the figures that each replica reports, and who is
// present.
//
// [Memory] keeps all of it in this process. Package redisstore keeps it in
// Redis, so that several replicas of an app share it. A Store of your own must
// pass the conformance suite in package storetest.
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
// All methods may be called concurrently. They obey the context's deadline and
// return [ErrClosed] after Close. A method that fails has done either nothing
// or everything that it was asked to do.
type Store interface {
	Log
	Registry
	Presence

	// Close frees what the Store itself opened, never what its constructor was
	// given. A second Close does nothing and returns nil.
	Close() error
}

var (
	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("store: closed")
	// ErrUnavailable is wrapped by errors that may go away by themselves: the
	// server cannot be reached, is failing over, or is out of memory.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrKeyReused is wrapped by Append's error if the key was used for another
	// message.
	ErrKeyReused = errors.New("store: the key was used for another message")
)

// Position is a place in a channel's log. Offsets count from 1 within an epoch,
// without gaps. An epoch names one life of a log. A log that was lost and
// begins anew gets another epoch. So does a log that may have lost its last
// entries and goes on. No Position ever means two messages. An epoch is 1 to 64
// of A-Z, a-z, 0-9, "-", "_", "." and "~", since clients send it in URLs. The
// zero Position is before the first message of a log that does not exist yet, and
// the offset 0 is before the first message of one that does.
type Position struct {
	Epoch  string
	Offset uint64
}

// Log keeps the last messages of each channel in one order.
//
// A log may lose its last entries: a server comes back with older data, or
// another server takes over. Such a log goes on under another epoch before
// anything is appended at a lost offset. It remembers its earlier epochs, and
// up to which offset each has the same messages as the log now. Until the next
// Append, Range and Tops may show the lower top under the earlier epoch.
type Log interface {
	// Append adds e to the channel's log, and says where and when. The Store
	// sets the entry's Offset and Time and ignores those in e. If o.Key was
	// already used for this channel within o.KeyTTL, Append adds nothing. It
	// then returns the position of the key's first entry, as a Duplicate; or
	// ErrKeyReused if o.Digest differs from that of the first use.
	//
	// The log drops its oldest entries beyond o.Size, and entries older than
	// o.TTL. It remembers its epoch and last offset for at least MetaTTL after
	// the last Append, and after the last Tops that named it, even if no entry
	// is left.
	//
	// Append does not keep or change e.Body and e.Info; the caller may reuse
	// them. A field of o below the minimum that AppendOptions names is an error.
	Append(ctx context.Context, channel string, e Entry, o AppendOptions) (Appended, error)

	// Begin returns the log's last position. If there is no log, it starts an empty
	// one, at offset 0, and the first Append goes on from there. An empty log is kept
	// for at least EmptyTTL after the last Begin or Tops that named it.
	Begin(ctx context.Context, channel string) (Position, error)

	// Range reads a part of a channel's log. An absent log is not an error: it
	// gives the zero Page. The caller owns the Page.
	Range(ctx context.Context, channel string, q Query) (Page, error)

	// Tops returns the last position of each channel, in the order of channels.
	// An absent log has the zero Position. Tops takes one round trip.
	Tops(ctx context.Context, channels []string) ([]Position, error)
}

// MetaTTL is how long a Store remembers a log's epoch and last offset, at
// least, after the last Append and after the last Tops that named it. A hub
// calls Tops for every channel with subscribers, so such a log never ends.
const MetaTTL = 24 * time.Hour

// EmptyTTL is how long a Store remembers a log, at least, that nothing was ever
// appended to. It is short, since clients may subscribe to channels of any name.
const EmptyTTL = 15 * time.Minute

// Entry is one message in a log.
type Entry struct {
	Offset uint64    // set by the Store
	Time   time.Time // when it was appended, by the Store's clock, in milliseconds
	Header string
	Body   json.RawMessage
	Info   []byte // the hub's own data about the message: any bytes, which the Store does not read; nil if there are none
}

// Appended is what an Append did.
type Appended struct {
	Position  Position  // the entry's
	Time      time.Time // the entry's, as Range gives it; zero for a Duplicate
	Duplicate bool      // the key's first entry is meant, and nothing was added
}

// AppendOptions are the limits of the log that Append adds to.
type AppendOptions struct {
	Size   int           // how many entries the log keeps; at least 1
	TTL    time.Duration // how long the log keeps an entry, earlier ones included; at least 1 ms
	Key    string        // idempotency key; empty: none
	KeyTTL time.Duration // how long Key is remembered from its first use; at least 1 ms if Key is set
	Digest string        // with Key: identifies the message; any bytes, up to 64
}

// Query selects a part of a log: the entries with After < offset, and with
// offset < Before unless Before is 0. Limit bounds their number; with a Limit
// of 0 the Page has positions only. Entries always come in ascending order. If
// there are more than Limit, the Page has the first ones, or with Newest the
// last ones. MaxBytes bounds the sum of their headers, bodies and infos in the
// same way, so that a page of long messages fits into memory. One entry is returned
// even if it is longer than MaxBytes. A MaxBytes of 0 means no bound.
type Query struct {
	After    uint64
	Before   uint64
	Limit    int
	MaxBytes int
	Newest   bool
}

// Page is the result of a Range.
type Page struct {
	Entries []Entry
	Top     Position // the log's last position
	First   uint64   // the offset of the oldest entry kept; Top.Offset+1 if none is; 0 for an absent log
	// Earlier lists the log's earlier epochs, newest first. Up to the offset
	// given for each, a position means the same in that epoch and in the
	// present one. At most 8; nil if there are none.
	Earlier []Position
}

// Registry holds what each replica reports about itself and its channels.
type Registry interface {
	// Report records a replica's heartbeat, and the numbers of the channels
	// that changed since its last Report. known is true if the Store still had
	// the record of the last Report that it acknowledged.
	//
	// It returns false if the Store held no such record, or an older one. The
	// Store then has only what this Report says; unless that was Full, the
	// replica must report everything.
	//
	// What a replica reported, its presence included, leaves every answer
	// [DeadAfter] after its last Report. Only Replicas shows the dead replica
	// itself for longer.
	Report(ctx context.Context, r Report) (known bool, err error)

	// Forget removes a replica and all that it reported, at once. An unknown
	// replica is not an error.
	Forget(ctx context.Context, replica string) error

	// Replicas returns the replicas whose last Report is no older than
	// [ForgottenAfter], sorted by ID. Dead ones are included: see Replica.Silent.
	Replicas(ctx context.Context) ([]Replica, error)

	// Channels returns up to limit channels whose names begin with prefix and
	// are greater than after (in byte order), sorted by name. Each has the sum
	// over all living replicas. Channels whose numbers are all zero are left
	// out.
	Channels(ctx context.Context, prefix, after string, limit int) ([]Count, error)

	// Channel returns one channel's sum over all living replicas. For a channel
	// that nobody reported, the numbers are zero and there is no error.
	Channel(ctx context.Context, name string) (Count, error)
}

// DeadAfter is how long after its last Report a replica counts as dead.
const DeadAfter = 10 * time.Second

// ForgottenAfter is how long after its last Report Replicas still lists a replica,
// so that operators see which one died.
const ForgottenAfter = time.Minute

// Report is what a replica reports about itself.
type Report struct {
	Replica  Replica
	Channels []Count // of this replica alone; a channel whose numbers are zero is removed
	// Full means that Channels and Members are all that the replica has. They
	// replace, in one step, what it reported earlier.
	Full    bool
	Members []PresenceChange // with Full only
}

// Replica is one replica. The Store sets Seen and Silent.
type Replica struct {
	ID      string
	Started time.Time
	Seen    time.Time // the last Report, by the Store's clock
	// Silent is how long ago the last Report was, by the Store's clock, at the
	// time of the call. It is right even if the Store takes no reports, for
	// instance because it is full.
	Silent time.Duration
	Info   json.RawMessage // the hub's own data; the Store does not read it
}

// Count holds a channel's numbers.
type Count struct {
	Channel     string
	Subscribers int
	Publishes   int // in the last 60 seconds
}

// Presence holds who is subscribed to channels, for each replica.
type Presence interface {
	// UpdatePresence applies changes in order. A replica's members live as long
	// as its reports. If the replica has no living record, or an older one than
	// the Store acknowledged, the changes are dropped without an error: the
	// replica's next Report makes it send everything again.
	UpdatePresence(ctx context.Context, replica string, changes []PresenceChange) error

	// Members returns up to limit members of a channel on all living replicas,
	// sorted by ID, and the total number.
	Members(ctx context.Context, channel string, limit int) (members []Member, total int, err error)
}

// PresenceChange is one member that joined or left a channel.
type PresenceChange struct {
	Channel string
	Member  Member
	Left    bool // if set, only Member.ID counts
}

// Member is one connection that is subscribed to a channel.
type Member struct {
	ID   string          `json:"id"`             // the connection's id, unique across replicas
	User string          `json:"user,omitempty"` // the identity's id
	Info json.RawMessage `json:"info,omitempty"` // what the identity tells others
}
