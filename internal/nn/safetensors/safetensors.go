// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"errors"
	"fmt"
	"math"
)

// Limits of a file, for reading and writing.
const (
	// MaxHeaderBytes bounds the JSON header, padding included.
	MaxHeaderBytes = 1 << 20
	// MaxDimensions bounds the dimensions of a tensor.
	MaxDimensions = 16
	// MaxDataBytes bounds the data of all tensors.
	MaxDataBytes = 1 << 40
)

const (
	dtype       = "F32"
	metadataKey = "__metadata__"
)

// ErrFormat is wrapped by every error about bytes that are not a valid file
// and about tensors that cannot be written as one.
var ErrFormat = errors.New("safetensors: bad format")

// Tensor is what is written: a name, a shape, and its values, row-major.
type Tensor struct {
	Name  string
	Shape []int
	Data  []float32
}

// Info describes one tensor of a file.
type Info struct {
	Name string
	// Shape is empty for a scalar.
	Shape []int
	// Len is the number of float32 values, the product of Shape.
	Len int
}

// Header is what a file says about itself.
type Header struct {
	// Metadata is the "__metadata__" object, nil when there is none.
	Metadata map[string]string
	// Tensors lie in the order of their data.
	Tensors []Info
}

// product returns the number of values of a shape.
func product(shape []int) (int, error) {
	if len(shape) > MaxDimensions {
		return 0, fmt.Errorf("%d dimensions, more than %d", len(shape), MaxDimensions)
	}
	n, zero := int64(1), false
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("dimension %d is negative", d)
		}
		zero = zero || d == 0
	}
	if zero {
		return 0, nil
	}
	for _, d := range shape {
		if int64(d) > MaxDataBytes/4/n {
			return 0, fmt.Errorf("shape %v has more than %d values", shape, int64(MaxDataBytes/4))
		}
		n *= int64(d)
	}
	if n > math.MaxInt/4 { // where int has 32 bits
		return 0, fmt.Errorf("shape %v does not fit this platform", shape)
	}
	return int(n), nil
}
