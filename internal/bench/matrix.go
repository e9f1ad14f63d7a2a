// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrMatrix is wrapped by errors about an experiment that cannot be run.
var ErrMatrix = errors.New("invalid experiment")

// MaxRuns is the most jobs of one experiment.
const MaxRuns = 10_000

// Setting is a flag of a command and its value.
type Setting struct{ Flag, Value string }

// String is "flag=value".
func (s Setting) String() string { return s.Flag + "=" + s.Value }

// password finds those in URLs.
var password = regexp.MustCompile(`(://[^/\s:@]*):[^/\s@]*@`)

// HidePasswords replaces the passwords in the URLs of a text, to show it.
func HidePasswords(text string) string { return password.ReplaceAllString(text, "$1:...@") }

// ParseSettings reads settings that are separated by spaces, such as
// "workers=4 rounds=1". No settings are the command's defaults.
func ParseSettings(text string) ([]Setting, error) {
	var all []Setting
	for _, field := range strings.Fields(text) {
		flag, value, found := strings.Cut(strings.TrimLeft(field, "-"), "=")
		if !found || flag == "" || value == "" {
			return nil, fmt.Errorf("%w: setting %q: want FLAG=VALUE", ErrMatrix, field)
		}
		all = append(all, Setting{flag, value})
	}
	return all, nil
}

// Axis is a flag and the values that it takes one after the other.
type Axis struct {
	Flag   string
	Values []string
}

// ParseAxis reads an axis such as "batch=32,64,128".
func ParseAxis(text string) (Axis, error) {
	flag, values, found := strings.Cut(strings.TrimLeft(text, "-"), "=")
	axis := Axis{flag, strings.Split(values, ",")}
	for _, v := range axis.Values {
		found = found && v != ""
	}
	if !found || flag == "" {
		return Axis{}, fmt.Errorf("%w: %q: want FLAG and its values, as FLAG=VALUE,VALUE", ErrMatrix, text)
	}
	return axis, nil
}

// Configuration is one row of an experiment.
type Configuration struct {
	Dataset string
	// Group are the values of the axes: only configurations of one data set and
	// one group are compared with each other.
	Group []Setting
	Case  []Setting
	// Base is the index of the configuration that this one is compared with: the
	// first case of its group.
	Base int
}

// Args are the command line's arguments after the command's name.
func (c Configuration) Args(seed uint64) []string {
	args := []string{c.Dataset, fmt.Sprintf("--seed=%d", seed)}
	for _, settings := range [][]Setting{c.Group, c.Case} {
		for _, s := range settings {
			args = append(args, "--"+s.String())
		}
	}
	return args
}

// Matrix makes the configurations of all data sets, all combinations of the
// axes and all cases, cases innermost. Without cases there is one, of no
// settings.
func Matrix(datasets []string, axes []Axis, cases [][]Setting, seeds int) ([]Configuration, error) {
	if len(cases) == 0 {
		cases = [][]Setting{nil}
	}
	runs := len(datasets) * len(cases) * seeds
	for _, a := range axes {
		runs *= len(a.Values)
		if runs > MaxRuns {
			break
		}
	}
	switch {
	case len(datasets) == 0:
		return nil, fmt.Errorf("%w: no data set is named", ErrMatrix)
	case seeds < 1:
		return nil, fmt.Errorf("%w: %d seeds; want 1 at least", ErrMatrix, seeds)
	case runs > MaxRuns:
		return nil, fmt.Errorf("%w: more than %d runs", ErrMatrix, MaxRuns)
	}
	groups := [][]Setting{nil}
	for _, a := range axes {
		var next [][]Setting
		for _, g := range groups {
			for _, v := range a.Values {
				next = append(next, append(g[:len(g):len(g)], Setting{a.Flag, v}))
			}
		}
		groups = next
	}
	var all []Configuration
	for _, d := range datasets {
		for _, g := range groups {
			base := len(all)
			for _, c := range cases {
				all = append(all, Configuration{Dataset: d, Group: g, Case: c, Base: base})
			}
		}
	}
	return all, nil
}
