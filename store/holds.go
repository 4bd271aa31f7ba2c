package store

import "context"

// Holder is what a [Store] may be besides. It knows which replicas hold a name, so that
// they agree on who was the first to come and who is the last to go. A hub whose Store
// is no Holder decides by what it has itself.
type Holder interface {
	// Hold applies a replica's changes in order, and says what became of each name.
	// It is also the replica's sign of life: a replica that holds something calls it
	// every second, without changes too.
	//
	// A replica that has not called for [DeadAfter], or was forgotten, is dead. What
	// it alone held passes to a replica that calls Hold with Inherits: to one of them,
	// which hears of it once, as Inherited. From other names the dead one is taken out.
	//
	// If a replica becomes the owner of a name without a change of its own, or becomes
	// the only holder, its next calls say so once. So a replica whose call failed calls
	// with Full: it may have missed something.
	Hold(ctx context.Context, replica string, h Holding) (Held, error)
}

// Holding is what a replica tells a [Holder].
type Holding struct {
	Changes []HoldChange
	// Full means that Changes are all that the replica holds. What the Store has
	// besides is not released: the replica gets it as Inherited, and decides.
	Full bool
	// Inherits lets the replica inherit from dead ones. After a time in which the Store
	// could not be reached, all replicas seem dead, so a hub waits a moment with it.
	Inherits bool
}

// HoldChange is one name that a replica takes or releases. Neither is an error if it
// was done before.
type HoldChange struct {
	Name     string // any text but the empty one
	Data     []byte // kept with the name, for whoever inherits it; nil leaves what is there
	Released bool
}

// Held is a Holder's answer.
type Held struct {
	Changes []HoldState // what became of each change, in the same order
	News    []HoldState // of other names that the replica holds; if there is any, more may follow
	Total   int         // how many names the replica holds now
}

// HoldState is how a name is held.
type HoldState struct {
	Name      string
	Owner     string // the replica that has held it longest; empty if none holds it
	Holders   int    // how many replicas hold it
	Changed   bool   // the change had an effect
	Inherited bool   // the replica has it from a dead one, or does not know that it has it
	Data      []byte // of an inherited name
}
