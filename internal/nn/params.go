// SPDX-License-Identifier: Apache-2.0

package nn

import "strconv"

// Param is one tensor of a model's parameters: a range of the flat vector that
// Instance.Weights, Moments and Gradients view.
type Param struct {
	// Name is "<kind>_<n>.weight" or "<kind>_<n>.bias"; n counts the layers of
	// that kind from 1.
	Name string
	// Shape is [kernel height, kernel width, channels in, filters] for the
	// weight of a conv2d, [in, units] for that of a dense layer, [filters] or
	// [units] for a bias: the layouts of Keras, row-major.
	Shape []int
	// Offset and Len count float32 values.
	Offset, Len int
}

// Params returns the tensors in the order in which they lie in the flat vector,
// without gaps: layer by layer, weight before bias. Nil for an invalid spec.
func (s Spec) Params() []Param {
	shapes, err := s.shapes()
	if err != nil {
		return nil
	}
	var params []Param
	offset, in := 0, s.Input
	add := func(name string, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		params = append(params, Param{Name: name, Shape: shape, Offset: offset, Len: n})
		offset += n
	}
	count := map[string]int{}
	for i, l := range s.Layers {
		count[l.Kind]++
		name := l.Kind + "_" + strconv.Itoa(count[l.Kind])
		switch l.Kind {
		case KindConv2D:
			add(name+".weight", l.Kernel, l.Kernel, in.C, l.Filters)
			add(name+".bias", l.Filters)
		case KindDense:
			add(name+".weight", in.C, l.Units)
			add(name+".bias", l.Units)
		}
		in = shapes[i]
	}
	return params
}

// ParamCount returns the length of the flat vector, zero for an invalid spec.
func (s Spec) ParamCount() int {
	n := 0
	for _, p := range s.Params() {
		n += p.Len
	}
	return n
}
