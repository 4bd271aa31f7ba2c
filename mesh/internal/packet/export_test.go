package packet

// Older is Next as the versions before trailers have it.
var Older = next

// Len returns how many texts are kept.
func (k *Kept) Len() int { return len(k.texts) }
