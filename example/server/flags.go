package main

import (
	"cmp"
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

// duration adds a flag for a time of lo to hi, or 0. For 0 it sets zero, since some
// options take 0 for their default.
func duration(fs *flag.FlagSet, name string, to *time.Duration, lo, hi, zero time.Duration, allowed, usage string) {
	fs.Func(name, usage, func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d != 0 && (d < lo || d > hi) {
			return errors.New("it must be " + allowed)
		}
		*to = cmp.Or(d, zero)
		return nil
	})
}
