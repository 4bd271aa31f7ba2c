package admin

import (
	"fmt"
	"math"
	"strconv"
)

// load is what a serving replica has in use, and how much it may have.
type load struct {
	replica                     string
	cpu, processors             float64
	connections, maxConnections int
}

// A replica above wellBelow has too little room for the clients of one that
// dies, or for what comes at once after a restart. With one replica less, the
// busiest has to stay below easily, so that the next hint is not the opposite.
const (
	wellBelow = 0.70
	easily    = 0.50
)

// hint says what another number of replicas would change, if that is worth a
// change within these limits. Otherwise it returns "". It takes the load to be
// spread over another number as it is over this one. It never advises to run a single
// replica, whose end would be everybody's.
func hint(serving []load, least, most int) string {
	n := len(serving)
	busiest, used, what := "", -1.0, ""
	for _, l := range serving {
		for _, use := range []struct {
			of    float64
			words string
		}{
			{l.cpu / l.processors, "its processors"},
			{float64(l.connections) / float64(l.maxConnections), "its connections"},
		} {
			if use.of > used && !math.IsInf(use.of, 0) { // a NaN is not greater either
				busiest, used, what = l.replica, use.of, use.words
			}
		}
	}
	if busiest == "" {
		return ""
	}
	if used >= wellBelow {
		more := 1
		for used*float64(n)/float64(n+more) >= wellBelow && n+more <= most {
			more++
		}
		begin := fmt.Sprintf("%s uses %d %% of %s", busiest, int(used*100), what)
		if n+more > most {
			return begin + fmt.Sprintf(", and the limit of %d replicas is too low to bring it below %d %%", most, int(wellBelow*100))
		}
		return begin + fmt.Sprintf(": %s more would bring the busiest below %d %%", inWords(more), int(wellBelow*100))
	}
	if n-1 >= max(least, 2) && used*float64(n)/float64(n-1) < easily {
		return fmt.Sprintf("the busiest, %s, uses %s of %s: one fewer would leave it below %d %%", busiest, part(used), what, int(easily*100))
	}
	return ""
}

// part is a small part as a sentence has it. Nobody should take 0 % for a broken gauge.
func part(of float64) string {
	if of < 0.05 {
		return "less than 5 %"
	}
	return fmt.Sprintf("%d %%", int(of*100))
}

// inWords is a number as a sentence has it.
func inWords(n int) string {
	words := []string{"none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
	if n < len(words) {
		return words[n]
	}
	return strconv.Itoa(n)
}
