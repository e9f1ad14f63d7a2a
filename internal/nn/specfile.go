// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"fmt"

	"disdel/internal/jsontext"
)

// ParseSpec reads a spec from its JSON form and validates it. Unknown fields
// and data after the object are errors. Fields that have their default values
// are left out of the result.
func ParseSpec(data []byte) (Spec, error) {
	f, err := parseFile(data)
	if err != nil {
		return Spec{}, err
	}
	s := Spec{Name: f.Name, Layers: f.Layers}
	if f.Input != nil {
		s.Input = *f.Input
	}
	if f.Classes != nil {
		s.Classes = *f.Classes
	}
	return finish(s, data)
}

// Complete reads a model from a file's bytes and fits it to a data set with
// records of shape in. The file is a spec's JSON form in which input and classes
// may be left out, and the units of the last layer too if it is dense; what is
// there must agree with the data set. The result is valid. Errors say the line and
// the column of what is wrong.
func Complete(data []byte, in Shape, classes int) (Spec, error) {
	f, err := parseFile(data)
	if err != nil {
		return Spec{}, err
	}
	switch {
	case f.Input != nil && *f.Input != in:
		return Spec{}, fmt.Errorf("%w: the model is for input %v, the data set has %v", ErrSpec, *f.Input, in)
	case f.Classes != nil && *f.Classes != classes:
		return Spec{}, fmt.Errorf("%w: the model is for %d classes, the data set has %d", ErrSpec, *f.Classes, classes)
	}
	s := Spec{Name: f.Name, Input: in, Classes: classes, Layers: f.Layers}
	if last := len(s.Layers) - 1; last >= 0 && s.Layers[last].Kind == KindDense && s.Layers[last].Units == 0 {
		s.Layers[last].Units = classes
	}
	return finish(s, data)
}

// CheckFile says what is wrong with a model's file before its data set is known:
// what cannot be read, and fields and values of the wrong kind.
func CheckFile(data []byte) error {
	_, err := parseFile(data)
	return err
}

// finish validates what was read from a file.
func finish(s Spec, data []byte) (Spec, error) {
	err := s.Validate()
	if err == nil {
		return s.normal(), nil
	}
	var wrong layerError
	if errors.As(err, &wrong) {
		if starts := jsontext.Elements(data, "layers"); wrong.index < len(starts) {
			err = fmt.Errorf("%w: %s: %w", ErrSpec, jsontext.Place(data, starts[wrong.index]), wrong.cause)
		}
	}
	return Spec{}, err
}

// specFile is a spec's JSON form, of which parts may be missing.
type specFile struct {
	Name    string  `json:"name"`
	Input   *Shape  `json:"input"`
	Classes *int    `json:"classes"`
	Layers  []Layer `json:"layers"`
}

func parseFile(data []byte) (f specFile, err error) {
	if len(data) > MaxSpecBytes {
		return f, fmt.Errorf("%w: %d bytes of JSON, more than %d", ErrSpec, len(data), MaxSpecBytes)
	}
	if err := jsontext.Decode(data, &f); err != nil {
		return f, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	if len(f.Layers) > MaxLayers {
		return f, fmt.Errorf("%w: number of layers is %d, not in 1..%d", ErrSpec, len(f.Layers), MaxLayers)
	}
	return f, nil
}
