package redismesh

// Lanes are the hash tags of a Cluster's lanes.
var Lanes = lanes

// MaxPerName is how many lives are followed on one channel.
const MaxPerName = maxPerName
