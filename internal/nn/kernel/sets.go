// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnknownSet is wrapped by ByName for a name that is not in Names.
var ErrUnknownSet = errors.New("kernel: unknown set")

// Names returns the names of all sets. Every machine can run every set.
func Names() []string { return []string{"fma-1", "generic-1"} }

// ByName returns the set of that name, in its fastest form on this machine.
func ByName(name string) (Set, error) {
	switch name {
	case "fma-1":
		return FMA(), nil
	case "generic-1":
		return Generic(), nil
	}
	return Set{}, fmt.Errorf("%w %.40q, known are: %s", ErrUnknownSet, name, strings.Join(Names(), ", "))
}

// Best returns the fastest set on this machine.
func Best() Set {
	if assembled() {
		return FMA()
	}
	return Generic()
}
