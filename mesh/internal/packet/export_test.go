package packet

// Len returns how many texts are kept.
func (k *Kept) Len() int { return len(k.texts) }
