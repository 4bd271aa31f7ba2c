package scale

var (
	ParseWorkload = parseWorkload
	ParseRefusal  = parseRefusal
	ParseNumbers  = parseNumbers
)

const (
	MaxAnswer   = maxAnswer
	MaxReplicas = maxReplicas
)
