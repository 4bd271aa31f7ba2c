package clientproto

// Messages is for the fuzz test of what cuts frames.
var Messages = messages
