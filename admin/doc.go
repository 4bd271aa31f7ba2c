// Package admin is the operators' page: which replicas run, how well each is and
// why, what they do now and did in the last 15 minutes, and what is in each
// channel. With a [Scaler] it also changes how many replicas run.
//
//	page, err := admin.New(hub, admin.Options{Token: token})
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer page.Close()
//	mux.Handle("/admin/", http.StripPrefix("/admin", page))
//
// Every replica serves the same page, and shows all replicas. It loads nothing from
// elsewhere, and depends on nothing that it diagnoses but the replica that serves it.
//
// Whoever is let in sees every channel with its messages, and may publish and
// disconnect: hand the token only to those who may do that.
//
// Where to read on: admin.go has the handler and options.go what it takes. session.go,
// login.go and guard.go let operators in, and guesses.go slows guesses down. watch.go
// looks at the replicas once a second, and points.go keeps what it saw. api.go has the
// table of what the page asks for, and api_X.go each answer. list.go has the sorted list
// of channels, and reasons.go the sentences for what a replica says of itself. scaling.go
// asks the Scaler, and missing.go knows since when it has fewer than are wanted. The page
// itself is in the folder page.
package admin
