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

// ByName returns the set of that name, in the form that this machine usually runs.
func ByName(name string) (Set, error) {
	switch name {
	case "fma-1":
		return FMA(), nil
	case "generic-1":
		return Generic(), nil
	}
	return Set{}, fmt.Errorf("%w %.40q, known are: %s", ErrUnknownSet, name, strings.Join(Names(), ", "))
}

// Forms of the sets that can be asked for by name. All but FormGeneric are fma-1, so
// they have the same bits.
const (
	FormAVX2      = "avx2"      // fma-1 by assembly
	FormAVX512    = "avx512"    // fma-1 by assembly with vectors of sixteen
	FormGeneric   = "generic"   // generic-1
	FormReference = "reference" // fma-1 in plain Go, on any machine
)

// Forms returns the names of all.
func Forms() []string { return []string{FormAVX2, FormAVX512, FormGeneric, FormReference} }

// ErrUnsupported is wrapped by Form for one that this machine cannot run.
var ErrUnsupported = errors.New("kernel: this machine cannot run it")

// Form returns a set in that form.
func Form(name string) (Set, error) {
	switch name {
	case FormAVX2:
		if !assembled() {
			return Set{}, fmt.Errorf("%w: kernel %s needs an x86-64 processor with AVX2 and FMA, and a program with assembly for it; "+
				"%s has the same bits anywhere", ErrUnsupported, name, FormReference)
		}
		return FMA(), nil
	case FormAVX512:
		s, ok := fma512()
		if !ok {
			return Set{}, fmt.Errorf("%w: kernel %s needs an x86-64 processor with AVX-512F, and a program with assembly for it; "+
				"%s and %s have the same bits", ErrUnsupported, name, FormAVX2, FormReference)
		}
		return s, nil
	case FormGeneric:
		return Generic(), nil
	case FormReference:
		return FMAReference(), nil
	}
	return Set{}, fmt.Errorf("%w: form %.40q, known are: %s", ErrUnknownSet, name, strings.Join(Forms(), ", "))
}

// Best returns the fastest set on this machine.
func Best() Set {
	if assembled() {
		return FMA()
	}
	return Generic()
}
