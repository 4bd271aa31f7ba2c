package main

import (
	"errors"
	"flag"
	"fmt"
	"strings"

	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/admin/scale"
)

// scaleFlags says what the operators' page scales. Without a Name, that is nothing.
func (cfg *config) scaleFlags(fs *flag.FlagSet) {
	fs.Func("admin-scale", "`KIND/NAME` of the Deployment or StatefulSet in Kubernetes whose pods are the replicas, e.g. deployment/app: the operators' page changes their number, as the pod's service account (default: it cannot)", func(s string) error {
		kind, name, _ := strings.Cut(s, "/")
		kinds := map[string]string{"deployment": "Deployment", "statefulset": "StatefulSet"}
		if s != "" && (kinds[kind] == "" || name == "") {
			return errors.New("it must be deployment/NAME or statefulset/NAME")
		}
		cfg.scale = scale.KubernetesOptions{Kind: kinds[kind], Name: name}
		return nil
	})
	number(fs, "admin-scale-min", &cfg.admin.ScaleMin, 1, 1000, "`N`: the smallest number of replicas that the page asks for (default 1)")
	number(fs, "admin-scale-max", &cfg.admin.ScaleMax, 1, 1000, "`N`: the largest (default 10)")
}

func (cfg *config) checkScale() error {
	if lo, hi := cfg.admin.ScaleMin, cfg.admin.ScaleMax; hi != 0 && lo > hi {
		return fmt.Errorf("-admin-scale-min is %d and -admin-scale-max is %d; the first must not be above the other", lo, hi)
	}
	if cfg.scale.Name != "" && cfg.admin.Token == "" {
		return errors.New("-admin-scale needs -admin-token-file or CHANNELS_ADMIN_TOKEN: without one, there is no page that could scale")
	}
	return nil
}

// scaler returns what the page scales with, or nil.
func (cfg *config) scaler() (admin.Scaler, error) {
	if cfg.scale.Name == "" {
		return nil, nil
	}
	s, err := scale.Kubernetes(cfg.scale)
	if err != nil {
		return nil, fmt.Errorf("-admin-scale: %w", err)
	}
	return s, nil
}
