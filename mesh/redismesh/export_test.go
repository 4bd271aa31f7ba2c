package redismesh

// Lanes are the hash tags of a Cluster's lanes.
var Lanes = lanes

// MaxPerName is the number of lives that are followed on one channel.
const MaxPerName = maxPerName
