// SPDX-License-Identifier: Apache-2.0

package points

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// NoSleep returns a variable for the environment of processes that tests start: under
// the race detector a program sleeps for a second before it ends, to hear of late
// races, and whoever waits for it sleeps too.
func NoSleep() string {
	return "GORACE=" + strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0")
}

// Some returns the points of a sweep that are tried, the first among them.
func Some[T any](all []T) []T {
	var some []T
	for i := 0; i < len(all); i += Stride {
		some = append(some, all[i])
	}
	return some
}

// Count is how many of n points are tried, at least one.
func Count(n int) int { return (n + Stride - 1) / Stride }

// Checks has rapid.Check try as many of its cases as Count says. It is called
// before the command line is read, which may ask for another number.
func Checks() error {
	const name = "rapid.checks"
	checks := flag.Lookup(name)
	if checks == nil {
		return fmt.Errorf("points: there is no flag -%s", name)
	}
	n, err := strconv.Atoi(checks.DefValue)
	if err != nil {
		return fmt.Errorf("points: -%s: %w", name, err)
	}
	return flag.Set(name, strconv.Itoa(Count(n)))
}
