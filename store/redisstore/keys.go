package redisstore

import "strings"

// keys makes the names of keys, which doc.go lists. All keys of one channel,
// and all of one replica, have the same text in their first braces, so that a
// Cluster keeps them in one slot. The part before the braces ends in a word
// without ":", so no two prefixes can make the same key.
type keys struct{ prefix string }

func (k keys) key(word, tag string) string {
	return k.prefix + ":" + word + ":{" + escapeTag(tag) + "}"
}

func (k keys) log(channel string) string { return k.key("log", channel) }
func (k keys) top(channel string) string { return k.key("top", channel) }
func (k keys) once(channel, key string) string {
	return k.key("once", channel) + ":" + key
}

func (k keys) nodes() string { return k.key("nodes", "nodes") }

// replica returns the keys of one replica that expire when it is dead, in the
// order that the scripts expect.
func (k keys) replica(node string) []string {
	return []string{k.node(node), k.names(node), k.counts(node), k.members(node), k.infos(node)}
}

// The holdings of all replicas are in one slot, since one script changes them.
func (k keys) holds() string           { return k.key("holds", "holds") }
func (k keys) holders() string         { return k.key("holders", "holds") }
func (k keys) held(node string) string { return k.key("held", "holds") + ":" + node }
func (k keys) news(node string) string { return k.key("news", "holds") + ":" + node }

func (k keys) card(node string) string    { return k.key("card", node) }
func (k keys) node(node string) string    { return k.key("node", node) }
func (k keys) names(node string) string   { return k.key("names", node) }
func (k keys) counts(node string) string  { return k.key("counts", node) }
func (k keys) members(node string) string { return k.key("members", node) }
func (k keys) infos(node string) string   { return k.key("infos", node) }

// tagEscapes keep Redis from ending a tag early, and from seeing an empty one.
var tagEscapes = strings.NewReplacer("%", "%25", "}", "%7D")

func escapeTag(s string) string {
	if s == "" {
		return "%" // nothing else is escaped to this
	}
	if !strings.ContainsAny(s, "%}") {
		return s
	}
	return tagEscapes.Replace(s)
}

// place names a member of a channel: the escaped channel, "\x00", the ID. So
// the members of each channel are together, sorted by ID.
func place(channel, id string) string { return room(channel) + "\x00" + id }

// roomEscapes keep the names of different channels different.
var roomEscapes = strings.NewReplacer("\x00", "\x01\x01", "\x01", "\x01\x02")

func room(channel string) string {
	if !strings.ContainsAny(channel, "\x00\x01") {
		return channel
	}
	return roomEscapes.Replace(channel)
}

// slot returns the Cluster slot of a tag: CRC-16 with the polynomial
// x^16+x^12+x^5+1, modulo 16384.
func slot(tag string) int {
	var crc uint16
	for i := range len(tag) {
		crc ^= uint16(tag[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc % slots)
}

const slots = 16384
