// SPDX-License-Identifier: Apache-2.0

package data

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ErrUnknown: Find and Load, for a name that is not in the catalogue.
var ErrUnknown = errors.New("data: unknown data set")

// ErrInvalid: Load, when what the source holds is not what it should be.
var ErrInvalid = errors.New("data: invalid data set")

// Info is what is known of a data set without loading it.
type Info struct {
	Name        string // what users type: lower case, unique
	Title       string
	Source      string // URL that people can read
	Licence     string // SPDX identifier, or empty when none is declared
	Attribution string // what the licence asks to be said

	H, W, C    int // shape of an image: rows, columns, channels
	Classes    int
	ClassNames []string // one for each class
	Train      int      // records of the training split
	Test       int      // records of the test split

	// Scale is what a pixel is multiplied with to lie in 0 .. 1.
	Scale float32
}

// RecordBytes is the size of one image.
func (i Info) RecordBytes() int { return i.H * i.W * i.C }

// Split is a part of a data set: Pixels holds the images one after the other,
// rows top down, channels interleaved.
type Split struct {
	Pixels []byte
	Labels []uint16
}

// Len is the number of records.
func (s Split) Len() int { return len(s.Labels) }

// Set is a loaded data set. Nobody changes it.
type Set struct {
	Info        Info
	Train, Test Split
}

// Dataset is a data set that can be loaded.
type Dataset interface {
	// Info is cheap and always the same. The caller does not change its slices.
	Info() Info
	// Load reads the data set. Safe for concurrent use; each call makes a set
	// of its own. It stops with the context's error once ctx is done. Callers
	// use the function Load of this package, which also checks the set.
	Load(ctx context.Context) (*Set, error)
}

// catalogue lists every data set, in the order in which people see them.
func catalogue() []Dataset {
	return []Dataset{digits{}}
}

// Names lists the data sets.
func Names() []string {
	var names []string
	for _, d := range catalogue() {
		names = append(names, d.Info().Name)
	}
	return names
}

// Find returns the data set of that name, or ErrUnknown with the names there are.
func Find(name string) (Dataset, error) {
	for _, d := range catalogue() {
		if d.Info().Name == name {
			return d, nil
		}
	}
	return nil, fmt.Errorf("%w %q; there is: %s", ErrUnknown, name, strings.Join(Names(), ", "))
}

// Load finds, loads and checks the data set of that name.
func Load(ctx context.Context, name string) (*Set, error) {
	d, err := Find(name)
	if err != nil {
		return nil, err
	}
	set, err := d.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("load data set %s: %w", name, err)
	}
	if err := set.Validate(); err != nil {
		return nil, fmt.Errorf("load data set %s: %w", name, err)
	}
	return set, nil
}
