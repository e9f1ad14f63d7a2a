// SPDX-License-Identifier: Apache-2.0

package nn

import "strconv"

// Ends of the names of a batchnorm's tensors that do not start from zero.
const (
	tensorGamma    = ".gamma"
	tensorVariance = ".moving_variance"
)

// Param is one tensor of a model: a range of the flat vector that
// Instance.Weights views.
type Param struct {
	// Name is "<kind>_<n>.<tensor>"; n counts the layers of that kind from 1.
	Name string
	// Shape is [kernel height, kernel width, channels in, filters] for the
	// weight of a conv2d, [in, units] for that of a dense layer, [filters] or
	// [units] for a bias, [channels] for what a batchnorm has: the layouts of
	// Keras, row-major.
	Shape []int
	// Offset and Len count float32 values.
	Offset, Len int
	// State says that no gradient changes the tensor: it is a moving statistic,
	// which belongs to the model all the same.
	State bool
}

// Params returns the tensors in the order in which they lie in the flat vector,
// without gaps. First those that are learned, layer by layer: weight and bias
// of a conv2d or dense layer (the bias if it has one), gamma and beta of a batchnorm. Then the state,
// layer by layer: moving_mean and moving_variance of a batchnorm. So gradients
// and moments, which only learned tensors have, are vectors over the first
// LearnedCount values. Nil for an invalid spec.
func (s Spec) Params() []Param {
	shapes, err := s.shapes()
	if err != nil {
		return nil
	}
	var params, states []Param
	count, in := map[string]int{}, s.Input
	for i, l := range s.Layers {
		count[l.Kind]++
		name := l.Kind + "_" + strconv.Itoa(count[l.Kind])
		switch l.Kind {
		case KindConv2D:
			params = append(params, Param{Name: name + ".weight", Shape: []int{l.Kernel, l.Kernel, in.C, l.Filters}})
		case KindDense:
			params = append(params, Param{Name: name + ".weight", Shape: []int{in.C, l.Units}})
		case KindBatchNorm:
			params = append(params,
				Param{Name: name + tensorGamma, Shape: []int{in.C}},
				Param{Name: name + ".beta", Shape: []int{in.C}})
			states = append(states,
				Param{Name: name + ".moving_mean", Shape: []int{in.C}, State: true},
				Param{Name: name + tensorVariance, Shape: []int{in.C}, State: true})
		}
		if in = shapes[i]; (l.Kind == KindConv2D || l.Kind == KindDense) && !l.NoBias {
			params = append(params, Param{Name: name + ".bias", Shape: []int{in.C}})
		}
	}
	params = append(params, states...)
	offset := 0
	for i := range params {
		p := &params[i]
		p.Offset, p.Len = offset, 1
		for _, d := range p.Shape {
			p.Len *= d
		}
		offset += p.Len
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

// LearnedCount returns the length of the part of the flat vector that is
// learned, zero for an invalid spec.
func (s Spec) LearnedCount() int {
	n := 0
	for _, p := range Learned(s.Params()) {
		n += p.Len
	}
	return n
}

// Learned returns the tensors that are learned: those before the first state.
func Learned(params []Param) []Param {
	for i, p := range params {
		if p.State {
			return params[:i]
		}
	}
	return params
}
