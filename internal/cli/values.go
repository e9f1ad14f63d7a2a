// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"disdel/internal/data/format"
	"disdel/internal/job"
	"disdel/internal/platform/pool/process"
)

// bytesValue is a flag for an amount of memory.
type bytesValue struct{ bytes *job.Bytes }

func (v bytesValue) String() string {
	if v.bytes == nil || *v.bytes == 0 {
		return ""
	}
	return v.bytes.String()
}
func (v bytesValue) Type() string { return "MB" }
func (v bytesValue) Set(s string) error {
	b, err := job.ParseBytes(s)
	if err != nil {
		return err
	}
	if b <= 0 {
		return fmt.Errorf("memory %q: want more than 0", s)
	}
	*v.bytes = b
	return nil
}

// durationValue is a flag for a time: a number of seconds or a Go duration.
type durationValue struct{ d *time.Duration }

func (v durationValue) String() string {
	if v.d == nil || *v.d == 0 {
		return ""
	}
	return v.d.String()
}
func (v durationValue) Type() string { return "seconds" }
func (v durationValue) Set(s string) error {
	d, err := time.ParseDuration(s)
	if seconds, numErr := strconv.ParseFloat(s, 64); numErr == nil {
		d, err = time.Duration(seconds*float64(time.Second)), nil
		if math.IsNaN(seconds) || seconds > math.MaxInt64/float64(time.Second) {
			err = fmt.Errorf("out of range")
		}
	}
	if err != nil || d <= 0 {
		return fmt.Errorf("time %q: want seconds (60) or a duration (1m30s), more than 0", s)
	}
	*v.d = d
	return nil
}

// countValue is a flag for a number of things, at least one, where leaving it
// out means "chosen by the plan".
type countValue struct{ n *int }

func (v countValue) String() string {
	if v.n == nil || *v.n == 0 {
		return ""
	}
	return strconv.Itoa(*v.n)
}
func (v countValue) Type() string { return "int" }
func (v countValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return fmt.Errorf("%q: want a whole number of at least 1", s)
	}
	*v.n = n
	return nil
}

// rateValue is a flag for a learning rate, where leaving it out means the usual
// one, so zero is none. The spec's own check finds the others that make no sense.
type rateValue struct{ numberValue }

func (v rateValue) Set(s string) error {
	if err := v.numberValue.Set(s); err != nil {
		return err
	}
	if *v.x == 0 {
		return fmt.Errorf("learning rate %s: want more than 0", s)
	}
	return nil
}

// numberValue is a flag for a number that is 0 where it is left out. The spec's own
// check finds those that make no sense.
type numberValue struct{ x *float64 }

func (v numberValue) String() string {
	if v.x == nil || *v.x == 0 {
		return ""
	}
	return strconv.FormatFloat(*v.x, 'g', -1, 64)
}
func (v numberValue) Type() string { return "float" }
func (v numberValue) Set(s string) error {
	x, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return fmt.Errorf("%q: want a number", s)
	}
	*v.x = x
	return nil
}

// seedValue is a flag for the seed of a generator.
type seedValue struct{ seed *uint64 }

func (v seedValue) String() string {
	if v.seed == nil {
		return ""
	}
	return strconv.FormatUint(*v.seed, 10)
}
func (v seedValue) Type() string { return "uint" }
func (v seedValue) Set(s string) error {
	seed, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return fmt.Errorf("%q: want a whole number from 0 to %d", s, uint64(math.MaxUint64))
	}
	*v.seed = seed
	return nil
}

// priceValue is a flag for an amount of money above 0.
type priceValue struct{ price *float64 }

func (v priceValue) String() string {
	if v.price == nil || *v.price == 0 {
		return ""
	}
	return strconv.FormatFloat(*v.price, 'g', -1, 64)
}
func (v priceValue) Type() string { return "money" }
func (v priceValue) Set(s string) error {
	const most = 1e9 // so that no cost is infinite
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || !(x > 0 && x <= most) {
		return fmt.Errorf("price %q: want a number above 0, such as 0.0000167", s)
	}
	*v.price = x
	return nil
}

var enforcementKinds = []string{process.CgroupV2, process.CgroupV1, process.SystemdScope, process.Watched}

// enforcements are the kinds as the flag has them.
func enforcements() []string {
	names := make([]string, len(enforcementKinds))
	for i, kind := range enforcementKinds {
		names[i] = strings.ReplaceAll(kind, " ", "-")
	}
	return names
}

// enforcementValue is a flag for a kind of enforcement of the process driver,
// with dashes for spaces.
type enforcementValue struct{ kind *string }

func (v enforcementValue) String() string {
	if v.kind == nil {
		return ""
	}
	return strings.ReplaceAll(*v.kind, " ", "-")
}
func (v enforcementValue) Type() string { return "string" }
func (v enforcementValue) Set(s string) error {
	for _, kind := range enforcementKinds {
		if s == strings.ReplaceAll(kind, " ", "-") {
			*v.kind = kind
			return nil
		}
	}
	return fmt.Errorf("want one of %s", strings.Join(enforcements(), ", "))
}

// syncValue is a flag for how replicas are kept together.
type syncValue struct{ sync *job.Sync }

func (v syncValue) String() string {
	if v.sync == nil {
		return ""
	}
	return string(*v.sync)
}
func (v syncValue) Type() string { return "string" }
func (v syncValue) Set(s string) error {
	if way := job.Sync(s); way == job.SyncRounds || way == job.SyncStep {
		*v.sync = way
		return nil
	}
	return fmt.Errorf("want %s or %s", job.SyncRounds, job.SyncStep)
}

// Kinds of platform, as --platform names them.
const (
	platformProcess   = "process"
	platformDocker    = "docker"
	platformOpenWhisk = "openwhisk"
)

// platformValue is a flag for one of some kinds of platform; "" is process.
type platformValue struct {
	name  *string
	kinds []string
}

func (v platformValue) String() string {
	if v.name == nil || *v.name == "" {
		return platformProcess
	}
	return *v.name
}
func (v platformValue) Type() string { return "string" }
func (v platformValue) Set(s string) error {
	if !slices.Contains(v.kinds, s) {
		return fmt.Errorf("want %s", strings.Join(v.kinds, " or "))
	}
	*v.name = s
	return nil
}

// shapeValue is a flag for the shape of an image.
type shapeValue struct{ shape **format.Shape }

func (v shapeValue) String() string {
	if v.shape == nil || *v.shape == nil {
		return ""
	}
	return (*v.shape).String()
}
func (v shapeValue) Type() string { return "HxW[xC]" }
func (v shapeValue) Set(s string) error {
	shape, err := format.ParseShape(s)
	if err != nil {
		return err
	}
	*v.shape = &shape
	return nil
}
