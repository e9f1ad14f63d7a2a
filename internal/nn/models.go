// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnknownModel is wrapped by Named for a name that is not in Names.
var ErrUnknownModel = errors.New("nn: unknown model")

// Names returns the names that Named knows, sorted.
func Names() []string { return []string{"cnn", "cnn-deep", "mlp"} }

// Named returns a model by name for records of shape in:
//
//   - cnn, the thesis's: Conv 3x3x32, ReLU, MaxPool 2, Flatten, Dense 64, ReLU,
//     Dense classes;
//   - cnn-deep: twice (Conv 3x3x32 same without bias, BatchNorm, ReLU), MaxPool 2, twice
//     (Conv 3x3x64 same, BatchNorm, ReLU), MaxPool 2, Flatten, Dense 128, ReLU,
//     Dropout 0.3, Dense classes;
//   - mlp: Flatten, Dense 128, ReLU, Dense 64, ReLU, Dense classes.
//
// The result is valid. An unknown name is ErrUnknownModel; a shape that the
// model cannot take is ErrSpec.
func Named(name string, in Shape, classes int) (Spec, error) {
	s := Spec{Name: name, Input: in, Classes: classes}
	switch name {
	case "cnn":
		s.Layers = []Layer{
			{Kind: KindConv2D, Filters: 32, Kernel: 3},
			{Kind: KindReLU},
			{Kind: KindMaxPool, Pool: 2},
			{Kind: KindFlatten},
			{Kind: KindDense, Units: 64},
			{Kind: KindReLU},
			{Kind: KindDense, Units: classes},
		}
	case "cnn-deep":
		for _, filters := range []int{32, 64} {
			for range 2 {
				s.Layers = append(s.Layers,
					Layer{Kind: KindConv2D, Filters: filters, Kernel: 3, Padding: PaddingSame, NoBias: true},
					Layer{Kind: KindBatchNorm}, Layer{Kind: KindReLU})
			}
			s.Layers = append(s.Layers, Layer{Kind: KindMaxPool, Pool: 2})
		}
		s.Layers = append(s.Layers,
			Layer{Kind: KindFlatten},
			Layer{Kind: KindDense, Units: 128}, Layer{Kind: KindReLU}, Layer{Kind: KindDropout, Rate: 0.3},
			Layer{Kind: KindDense, Units: classes})
	case "mlp":
		s.Layers = []Layer{
			{Kind: KindFlatten},
			{Kind: KindDense, Units: 128},
			{Kind: KindReLU},
			{Kind: KindDense, Units: 64},
			{Kind: KindReLU},
			{Kind: KindDense, Units: classes},
		}
	default:
		return Spec{}, fmt.Errorf("%w %.40q, known are: %s", ErrUnknownModel, name, strings.Join(Names(), ", "))
	}
	if err := s.Validate(); err != nil {
		return Spec{}, fmt.Errorf("model %s for input %v: %w", name, in, err)
	}
	return s, nil
}
