package scale

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/channels-go/channels/internal/exact"
)

// maxReplicas is more than anybody runs. What says more is wrong.
const maxReplicas = 1_000_000

// parseWorkload reads the two numbers of a Deployment or StatefulSet. A number
// of ready pods that is 0 is left out there.
func parseWorkload(body []byte) (ready, wanted int, err error) {
	var w struct {
		Spec struct {
			Replicas *int `json:"replicas"`
		} `json:"spec"`
		Status struct {
			ReadyReplicas int `json:"readyReplicas"`
		} `json:"status"`
	}
	if err := exact.Unmarshal(body, &w); err != nil {
		return 0, 0, errors.New("the API server's answer is not understood: " + plain(err.Error())) // it may repeat a number of any length
	}
	if w.Spec.Replicas == nil {
		return 0, 0, errors.New("the API server's answer has no spec.replicas")
	}
	ready, wanted = w.Status.ReadyReplicas, *w.Spec.Replicas
	if ready < 0 || ready > maxReplicas || wanted < 0 || wanted > maxReplicas {
		return 0, 0, fmt.Errorf("the API server tells of %d ready replicas of %d", ready, wanted)
	}
	return ready, wanted, nil
}

// parseRefusal returns the reason that the API server gives in a Status, or "".
func parseRefusal(body []byte) string {
	var s struct {
		Message string `json:"message"`
	}
	if exact.Unmarshal(body, &s) != nil {
		return ""
	}
	return plain(s.Message)
}

// maxSaid bounds what an error repeats of what others say.
const maxSaid = 400

// plain makes one short line of a text that others wrote.
func plain(text string) string {
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
	if len(text) > maxSaid {
		text = strings.ToValidUTF8(text[:maxSaid], "") + "…"
	}
	return text
}
