// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Kinds of layers.
const (
	KindConv2D  = "conv2d"
	KindReLU    = "relu"
	KindMaxPool = "maxpool"
	KindFlatten = "flatten"
	KindDense   = "dense"
)

// Limits that Validate enforces. Together they keep every size in bytes and
// every count of operations inside int64.
const (
	MaxLayers     = 64
	MaxNameBytes  = 128
	MaxSide       = 1 << 12 // height, width and channels of the input
	MaxFilters    = 1 << 12
	MaxKernel     = 32
	MaxPool       = 16 // the place of a maximum in its window is one byte
	MaxUnits      = 1 << 16
	MaxClasses    = 1 << 16 // labels are uint16
	MaxElements   = 1 << 24 // values of one record between two layers
	MaxParameters = 1 << 28
)

// ErrSpec is wrapped by every error about a model that cannot be built.
var ErrSpec = errors.New("nn: bad model")

// Shape is the size of one record between two layers: height, width and
// channels, stored with channels innermost (NHWC). A flat vector of n values is
// Shape{1, 1, n}.
type Shape struct {
	H int `json:"h"`
	W int `json:"w"`
	C int `json:"c"`
}

// Elements returns the number of values of one record.
func (s Shape) Elements() int { return s.H * s.W * s.C }

// String returns "HxWxC".
func (s Shape) String() string { return fmt.Sprintf("%dx%dx%d", s.H, s.W, s.C) }

// Layer is one layer of a model. Kind says which of the other fields are used;
// the others must be zero.
type Layer struct {
	// Kind is conv2d, relu, maxpool, flatten or dense.
	Kind string `json:"kind"`
	// Filters is the number of output channels of a conv2d.
	Filters int `json:"filters,omitempty"`
	// Kernel is the height and width of a conv2d's window. The stride is one
	// and there is no padding ("valid").
	Kernel int `json:"kernel,omitempty"`
	// Pool is the height, width and stride of a maxpool's window. Rows and
	// columns that do not fill a window are dropped, as in Keras.
	Pool int `json:"pool,omitempty"`
	// Units is the number of outputs of a dense layer.
	Units int `json:"units,omitempty"`
}

// Spec describes a model: what goes in, its layers, how many classes come out.
// The last layer is a dense one whose units are the classes' logits; the loss
// is softmax cross-entropy.
type Spec struct {
	Name    string  `json:"name"`
	Input   Shape   `json:"input"`
	Classes int     `json:"classes"`
	Layers  []Layer `json:"layers"`
}

// ParseSpec reads a spec from its JSON form and validates it. Unknown fields
// and data after the object are errors.
func ParseSpec(data []byte) (Spec, error) {
	var s Spec
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Spec{}, fmt.Errorf("%w: parse: %w", ErrSpec, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Spec{}, fmt.Errorf("%w: parse: data after the object", ErrSpec)
	}
	if err := s.Validate(); err != nil {
		return Spec{}, err
	}
	return s, nil
}

// Canonical returns the spec's JSON form: no spaces, fields in declared order,
// unused ones left out. Equal specs have equal canonical forms.
func (s Spec) Canonical() []byte {
	if s.Layers == nil {
		s.Layers = []Layer{}
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic("BUG: a spec is integers and strings: " + err.Error())
	}
	return b
}

// Validate says whether the model can be built, and if not, which layer is
// wrong and why. It changes nothing. Every other function of the package that
// takes a Spec expects one that is valid.
func (s Spec) Validate() error {
	_, err := s.shapes()
	return err
}

// shapes validates the spec and returns each layer's output shape.
func (s Spec) shapes() ([]Shape, error) {
	if len(s.Name) > MaxNameBytes || !utf8.ValidString(s.Name) {
		return nil, fmt.Errorf("%w: name: more than %d bytes, or not UTF-8", ErrSpec, MaxNameBytes)
	}
	for _, f := range []struct {
		name      string
		value, lo int
		hi        int
	}{
		{"input height", s.Input.H, 1, MaxSide},
		{"input width", s.Input.W, 1, MaxSide},
		{"input channels", s.Input.C, 1, MaxSide},
		{"classes", s.Classes, 2, MaxClasses},
		{"number of layers", len(s.Layers), 1, MaxLayers},
	} {
		if f.value < f.lo || f.value > f.hi {
			return nil, fmt.Errorf("%w: %s is %d, not in %d..%d", ErrSpec, f.name, f.value, f.lo, f.hi)
		}
	}
	if e := int64(s.Input.H) * int64(s.Input.W) * int64(s.Input.C); e > MaxElements {
		return nil, fmt.Errorf("%w: input %v has %d values, more than %d", ErrSpec, s.Input, e, MaxElements)
	}
	shapes := make([]Shape, len(s.Layers))
	in, parameters := s.Input, int64(0)
	for i, l := range s.Layers {
		out, p, err := l.apply(in)
		if err == nil && int64(out.H)*int64(out.W)*int64(out.C) > MaxElements {
			err = fmt.Errorf("output %v has more than %d values", out, MaxElements)
		}
		if parameters += p; err == nil && parameters > MaxParameters {
			err = fmt.Errorf("more than %d parameters", MaxParameters)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: layer %d (%s): %w", ErrSpec, i, l.kind(), err)
		}
		shapes[i], in = out, out
	}
	last := len(s.Layers) - 1
	if l := s.Layers[last]; l.Kind != KindDense || l.Units != s.Classes {
		return nil, fmt.Errorf("%w: layer %d (%s): the last layer must be dense with %d units, one per class",
			ErrSpec, last, l.kind(), s.Classes)
	}
	return shapes, nil
}

// kind returns the kind for messages: bounded, quoted when odd.
func (l Layer) kind() string {
	switch l.Kind {
	case KindConv2D, KindReLU, KindMaxPool, KindFlatten, KindDense:
		return l.Kind
	}
	return fmt.Sprintf("%.40q", l.Kind)
}

// apply returns the output shape of the layer for a valid input shape, and the
// number of its parameters. in has at most MaxElements values and each field
// has its bound, so no product here overflows.
func (l Layer) apply(in Shape) (out Shape, parameters int64, err error) {
	fields := [...]struct {
		name      string
		value, hi int
		used      bool
	}{
		{"filters", l.Filters, MaxFilters, l.Kind == KindConv2D},
		{"kernel", l.Kernel, MaxKernel, l.Kind == KindConv2D},
		{"pool", l.Pool, MaxPool, l.Kind == KindMaxPool},
		{"units", l.Units, MaxUnits, l.Kind == KindDense},
	}
	for _, f := range fields {
		switch {
		case f.used && (f.value < 1 || f.value > f.hi):
			return out, 0, fmt.Errorf("%s is %d, not in 1..%d", f.name, f.value, f.hi)
		case !f.used && f.value != 0:
			return out, 0, fmt.Errorf("%s is %d, but this kind has none", f.name, f.value)
		}
	}
	switch l.Kind {
	case KindConv2D:
		if l.Kernel > in.H || l.Kernel > in.W {
			return out, 0, fmt.Errorf("kernel %d does not fit input %v", l.Kernel, in)
		}
		out = Shape{in.H - l.Kernel + 1, in.W - l.Kernel + 1, l.Filters}
		return out, (int64(l.Kernel)*int64(l.Kernel)*int64(in.C) + 1) * int64(l.Filters), nil
	case KindReLU:
		return in, 0, nil
	case KindMaxPool:
		if l.Pool > in.H || l.Pool > in.W {
			return out, 0, fmt.Errorf("pool %d does not fit input %v", l.Pool, in)
		}
		return Shape{in.H / l.Pool, in.W / l.Pool, in.C}, 0, nil
	case KindFlatten:
		return Shape{1, 1, in.Elements()}, 0, nil
	case KindDense:
		if in.H != 1 || in.W != 1 {
			return out, 0, fmt.Errorf("input %v is not flat: put a flatten layer before", in)
		}
		return Shape{1, 1, l.Units}, (int64(in.C) + 1) * int64(l.Units), nil
	}
	return out, 0, errors.New("unknown kind")
}
