package redismesh

// Lanes are the hash tags of a Cluster's lanes.
var Lanes = lanes
