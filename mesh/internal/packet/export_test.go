package packet

// Len is how many texts are kept.
func (k *Kept) Len() int { return len(k.texts) }
