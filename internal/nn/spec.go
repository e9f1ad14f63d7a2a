// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"disdel/internal/nn/kernel"
)

// Kinds of layers.
const (
	KindConv2D    = "conv2d"
	KindReLU      = "relu"
	KindMaxPool   = "maxpool"
	KindAvgPool   = "avgpool"
	KindBatchNorm = "batchnorm"
	KindDropout   = "dropout"
	KindFlatten   = "flatten"
	KindDense     = "dense"
	KindAdd       = "add"
	KindGlobalAvg = "globalavgpool"
)

// kinds has all of them, as messages list them.
var kinds = []string{
	KindConv2D, KindReLU, KindMaxPool, KindAvgPool, KindBatchNorm, KindDropout, KindFlatten, KindDense,
	KindAdd, KindGlobalAvg,
}

// Paddings of a convolution.
const (
	// PaddingValid: none, the window stays inside the input.
	PaddingValid = "valid"
	// PaddingSame: as many rows and columns of zeros as make the output as large
	// as the input, divided by the stride and rounded up. Of an odd number the
	// extra one is below and on the right, as in Keras.
	PaddingSame = "same"
)

// Limits that Validate enforces. Together they keep every size in bytes and
// every count of operations inside int64.
const (
	MaxSpecBytes  = 1 << 16 // of a spec's JSON form
	MaxLayers     = 128
	MaxNameBytes  = 128
	MaxSide       = 1 << 12 // height, width and channels of the input
	MaxFilters    = 1 << 12
	MaxKernel     = 32
	MaxStride     = 32
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
//
// A batchnorm has no fields: it is Keras's, over channels, with momentum 0.99
// and epsilon 0.001. Training normalises with the batch's own statistics,
// anything else with their moving averages. These are corrected for their start
// from nothing, as Adam's moments are; Keras's are not, and need 500 steps before
// a model can be used.
type Layer struct {
	// Kind is conv2d, relu, maxpool, avgpool, batchnorm, dropout, flatten, dense,
	// add or globalavgpool. The last is the mean of each channel over all rows and
	// columns, which is flat.
	Kind string `json:"kind"`
	// Filters is the number of output channels of a conv2d.
	Filters int `json:"filters,omitempty"`
	// Kernel is the height and width of a conv2d's window.
	Kernel int `json:"kernel,omitempty"`
	// Stride is how far apart a conv2d's windows are, in both directions; zero
	// means one. An add with a stride above one takes every so many rows and
	// columns of the earlier output, from the first.
	Stride int `json:"stride,omitempty"`
	// Padding of a conv2d is PaddingValid or PaddingSame; empty means valid.
	Padding string `json:"padding,omitempty"`
	// Pool is the height, width and stride of the window of a maxpool or an
	// avgpool. Rows and columns that do not fill a window are dropped, as in
	// Keras.
	Pool int `json:"pool,omitempty"`
	// Rate is the share of values that a dropout sets to zero in training, in
	// [0, 1). The others are divided by 1 - Rate, so that nothing is to be done
	// outside training.
	Rate float64 `json:"rate,omitempty"`
	// Units is the number of outputs of a dense layer.
	Units int `json:"units,omitempty"`
	// NoBias leaves out the bias of a conv2d or a dense layer. Before a batchnorm
	// a bias has no effect, but rounding gives it a gradient, which Adam enlarges.
	NoBias bool `json:"no_bias,omitempty"`
	// Back says what an add adds to the output of the layer before it: the output of
	// the layer so many places before the add in the list, two at least; the model's
	// input is one place before layer 0. Counted like this a block of layers means
	// the same wherever it stands. Both must have one shape. With a stride above one
	// the earlier output has as many rows and columns as a convolution of that stride
	// with padding same takes, and may have fewer channels: those that it lacks
	// count as zeros.
	Back int `json:"back,omitempty"`
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

// normal returns the spec without fields that have their default values, in
// layers of its own, so that equal models have one form.
func (s Spec) normal() Spec {
	s.Layers = append([]Layer{}, s.Layers...)
	for i := range s.Layers {
		l := &s.Layers[i]
		if l.Stride == 1 {
			l.Stride = 0
		}
		if l.Padding == PaddingValid {
			l.Padding = ""
		}
		if l.Rate == 0 { // minus zero too
			l.Rate = 0
		}
	}
	return s
}

// Canonical returns the JSON form of a valid spec: no spaces, fields in declared
// order, unused ones and defaults left out. Equal models have equal canonical
// forms.
func (s Spec) Canonical() []byte {
	b, err := json.Marshal(s.normal())
	if err != nil {
		panic("BUG: a valid spec is finite numbers and strings: " + err.Error())
	}
	return b
}

// WholeBatches says that training needs all records of a batch at once: a batchnorm
// normalises each by the statistics of all.
func (s Spec) WholeBatches() bool {
	return slices.ContainsFunc(s.Layers, func(l Layer) bool { return l.Kind == KindBatchNorm })
}

// Validate says whether the model can be built, and if not, which layer is
// wrong and why. It changes nothing. Every other function of the package that
// takes a Spec expects one that is valid.
func (s Spec) Validate() error {
	_, err := s.shapes()
	return err
}

// layerError is an ErrSpec about one layer.
type layerError struct {
	index int
	cause error
}

func (e layerError) Error() string   { return ErrSpec.Error() + ": " + e.cause.Error() }
func (e layerError) Unwrap() []error { return []error{ErrSpec, e.cause} }

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
		if err == nil && l.Kind == KindAdd {
			err = l.checkAdd(i, in, func(layer int) Shape {
				if layer < 0 {
					return s.Input
				}
				return shapes[layer]
			})
		}
		if err == nil && int64(out.H)*int64(out.W)*int64(out.C) > MaxElements {
			err = fmt.Errorf("output %v has more than %d values", out, MaxElements)
		}
		if parameters += p; err == nil && parameters > MaxParameters {
			err = fmt.Errorf("more than %d parameters", MaxParameters)
		}
		if err != nil {
			return nil, layerError{i, fmt.Errorf("layer %d (%s): %w", i, l.kind(), err)}
		}
		shapes[i], in = out, out
	}
	last := len(s.Layers) - 1
	if l := s.Layers[last]; l.Kind != KindDense || l.Units != s.Classes {
		return nil, layerError{last, fmt.Errorf("layer %d (%s): the last layer must be dense with %d units, one per class",
			last, l.kind(), s.Classes)}
	}
	return shapes, nil
}

// kind returns the kind for messages: bounded, quoted when odd.
func (l Layer) kind() string {
	if slices.Contains(kinds, l.Kind) {
		return l.Kind
	}
	return fmt.Sprintf("%.40q", l.Kind)
}

// checkFields says which field is out of its range or not of this kind. The
// conditions are written so that NaN is out of range.
func (l Layer) checkFields() error {
	if !slices.Contains(kinds, l.Kind) {
		return fmt.Errorf("unknown kind, known are: %s", strings.Join(kinds, ", "))
	}
	conv, pool, add := l.Kind == KindConv2D, l.Kind == KindMaxPool || l.Kind == KindAvgPool, l.Kind == KindAdd
	for _, f := range [...]struct {
		name          string
		value, lo, hi int
		used          bool
	}{
		{"filters", l.Filters, 1, MaxFilters, conv},
		{"kernel", l.Kernel, 1, MaxKernel, conv},
		{"stride", l.Stride, 0, MaxStride, conv || add},
		{"pool", l.Pool, 1, MaxPool, pool},
		{"units", l.Units, 1, MaxUnits, l.Kind == KindDense},
		{"back", l.Back, 2, MaxLayers, add},
	} {
		switch {
		case f.used && (f.value < f.lo || f.value > f.hi):
			return fmt.Errorf("%s is %d, not in %d..%d", f.name, f.value, max(f.lo, 1), f.hi)
		case !f.used && f.value != 0:
			return fmt.Errorf("%s is %d, but this kind has none", f.name, f.value)
		}
	}
	switch {
	case conv && l.Padding != "" && l.Padding != PaddingValid && l.Padding != PaddingSame:
		return fmt.Errorf("padding is %.40q, not %q or %q", l.Padding, PaddingValid, PaddingSame)
	case !conv && l.Padding != "":
		return fmt.Errorf("padding is %.40q, but this kind has none", l.Padding)
	case l.Kind == KindDropout && !(l.Rate >= 0 && l.Rate < 1):
		return fmt.Errorf("rate is %v, not in [0, 1)", l.Rate)
	case l.Kind != KindDropout && l.Rate != 0:
		return fmt.Errorf("rate is %v, but this kind has none", l.Rate)
	case l.NoBias && !conv && l.Kind != KindDense:
		return errors.New("no_bias is set, but this kind has no bias")
	}
	return nil
}

// apply returns the output shape of the layer for a valid input shape, and the
// number of values in its tensors. in has at most MaxElements values and each
// field has its bound, so no product here overflows.
func (l Layer) apply(in Shape) (out Shape, parameters int64, err error) {
	if err := l.checkFields(); err != nil {
		return out, 0, err
	}
	switch l.Kind {
	case KindConv2D:
		h, w, _ := l.window(in)
		if h < 1 || w < 1 {
			return out, 0, fmt.Errorf("kernel %d does not fit input %v", l.Kernel, in)
		}
		out = Shape{h, w, l.Filters}
		return out, (int64(l.Kernel)*int64(l.Kernel)*int64(in.C) + l.biases()) * int64(l.Filters), nil
	case KindReLU, KindDropout, KindAdd:
		return in, 0, nil
	case KindGlobalAvg:
		return Shape{1, 1, in.C}, 0, nil
	case KindBatchNorm:
		return in, 4 * int64(in.C), nil
	case KindMaxPool, KindAvgPool:
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
		return Shape{1, 1, l.Units}, (int64(in.C) + l.biases()) * int64(l.Units), nil
	}
	panic("BUG: no shape for a known kind of layer: " + l.Kind)
}

// checkAdd says whether the layer, number i of the list, can add an earlier output
// to one of the shape in.
func (l Layer) checkAdd(i int, in Shape, outputOf func(layer int) Shape) error {
	from := i - l.Back
	if from < -1 {
		return fmt.Errorf("back is %d, but only the input and %d layers are before this one", l.Back, i)
	}
	name, earlier := "the input", outputOf(from)
	if from >= 0 {
		name = fmt.Sprintf("layer %d", from)
	}
	stride := max(l.Stride, 1)
	fits := func(all, part int) bool { return (all+stride-1)/stride == part }
	switch {
	case stride == 1 && earlier != in:
		return fmt.Errorf("adds %v of %s, %d back, to %v: the shapes differ", earlier, name, l.Back, in)
	case !fits(earlier.H, in.H) || !fits(earlier.W, in.W) || earlier.C > in.C:
		return fmt.Errorf("adds every %d rows and columns of %v of %s, %d back, to %v: the shapes do not fit", stride, earlier, name, l.Back, in)
	}
	return nil
}

// biases returns how many biases every output channel has.
func (l Layer) biases() int64 {
	if l.NoBias {
		return 0
	}
	return 1
}

// window returns the height and width of a convolution's output, below one if
// no window fits, and its padding.
func (l Layer) window(in Shape) (h, w int, pad kernel.Pad) {
	side := func(n int) (out, before, after int) {
		stride := max(l.Stride, 1)
		if l.Padding == PaddingSame {
			out = (n + stride - 1) / stride
			all := max(0, (out-1)*stride+l.Kernel-n)
			return out, all / 2, all - all/2
		}
		if l.Kernel > n {
			return 0, 0, 0
		}
		return (n-l.Kernel)/stride + 1, 0, 0
	}
	h, pad.Top, pad.Bottom = side(in.H)
	w, pad.Left, pad.Right = side(in.W)
	return h, w, pad
}
