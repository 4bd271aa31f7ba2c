package main

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// list adds a flag for values separated by spaces, which may be repeated.
func list(fs *flag.FlagSet, name, usage string, add func(string) error) {
	fs.Func(name, usage, func(s string) error {
		for one := range strings.FieldsSeq(s) {
			if err := add(one); err != nil {
				return err
			}
		}
		return nil
	})
}

// number adds a flag for a number from lo to hi.
func number(fs *flag.FlagSet, name string, to *int, lo, hi int, usage string) {
	fs.Func(name, usage, func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < lo || n > hi {
			return fmt.Errorf("it must be %d to %d", lo, hi)
		}
		*to = n
		return nil
	})
}

// boolFlag is fs.BoolVar with an error that tells what is allowed.
func boolFlag(fs *flag.FlagSet, name string, to *bool, usage string) {
	fs.BoolFunc(name, usage, func(s string) (err error) {
		if *to, err = strconv.ParseBool(s); err != nil {
			return errors.New("it must be true or false")
		}
		return nil
	})
}

// drainTime adds a flag for a time of up to 10 minutes.
func drainTime(fs *flag.FlagSet, name string, to *time.Duration, usage string) {
	fs.Func(name, usage, func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 || d > 10*time.Minute {
			return errors.New("it must be 0 to 10m, with a unit: 5s, 2m")
		}
		*to = d
		return nil
	})
}
