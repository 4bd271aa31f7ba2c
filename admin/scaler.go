package admin

import "context"

// A Scaler says how many replicas run, and changes it. Package
// [github.com/channels-go/channels/admin/scale] has one for Kubernetes and one
// that runs a command.
//
// Both methods may be called concurrently, also by the pages of several
// replicas. They return by the end of ctx at the latest, with its error, and
// bound their own time too. Whoever is logged in sees the text of an error: it
// says what was wrong and what to do about it, and holds no secret.
type Scaler interface {
	// Replicas returns how many replicas serve, and how many are to run. They
	// differ while replicas start and end, and after one has died that nobody
	// restarts. Neither is negative. If err is not nil, neither is known.
	Replicas(ctx context.Context) (ready, wanted int, err error)

	// Scale makes n the number of replicas that are to run. It returns as soon
	// as the order is accepted, usually before replicas have started or ended:
	// Replicas tells when that is done. Scaling to the number that is already
	// wanted is no error; it starts again what is missing, if nothing else
	// does. The last of several calls decides. The caller has checked n
	// against [Options.ScaleMin] and [Options.ScaleMax]; a Scaler with limits
	// of its own returns an error for what is beyond them.
	//
	// A replica that is to end should be the one with the fewest connections,
	// and should drain first: see
	// [github.com/channels-go/channels.Hub.Drain].
	Scale(ctx context.Context, n int) error
}
