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
func Names() []string { return []string{"cnn", "cnn-deep", "lenet5", "mlp", "resnet20"} }

// Named returns a model by name for records of shape in:
//
//   - cnn, the thesis's: Conv 3x3x32, ReLU, MaxPool 2, Flatten, Dense 64, ReLU,
//     Dense classes;
//   - cnn-deep: twice (Conv 3x3x32 same without bias, BatchNorm, ReLU), MaxPool 2, twice
//     (Conv 3x3x64 same, BatchNorm, ReLU), MaxPool 2, Flatten, Dense 128, ReLU,
//     Dropout 0.3, Dense classes;
//   - lenet5, after LeCun et al. 1998: Conv 5x5x6, ReLU, MaxPool 2, Conv 5x5x16, ReLU,
//     MaxPool 2, Flatten, Dense 120, ReLU, Dense 84, ReLU, Dense classes. The first
//     convolution is padded (same) where a side is below 32, so that 28x28 gives the
//     sizes that 32x32 does. Records need 12x12 pixels at least;
//   - mlp: Flatten, Dense 128, ReLU, Dense 64, ReLU, Dense classes;
//   - resnet20, He et al. 2015, section 4.2: Conv 3x3x16, BatchNorm, ReLU; three stages
//     of three blocks with 16, 32 and 64 filters, each block Conv 3x3, BatchNorm, ReLU,
//     Conv 3x3, BatchNorm, add, ReLU, the first convolution of the second and the
//     third stage with stride 2; global average, Dense classes. Convolutions are padded
//     (same) and have no bias. Shortcuts have no parameters (option A): where the
//     shape changes they take every second row and column, and zeros for the new
//     channels, which come last.
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
	case "lenet5":
		if in.H < lenetSide || in.W < lenetSide {
			return Spec{}, fmt.Errorf("model %s for input %v: %w: records need %dx%d pixels at least", name, in, ErrSpec, lenetSide, lenetSide)
		}
		padding := ""
		if in.H < 32 || in.W < 32 {
			padding = PaddingSame
		}
		s.Layers = []Layer{
			{Kind: KindConv2D, Filters: 6, Kernel: 5, Padding: padding},
			{Kind: KindReLU},
			{Kind: KindMaxPool, Pool: 2},
			{Kind: KindConv2D, Filters: 16, Kernel: 5},
			{Kind: KindReLU},
			{Kind: KindMaxPool, Pool: 2},
			{Kind: KindFlatten},
			{Kind: KindDense, Units: 120},
			{Kind: KindReLU},
			{Kind: KindDense, Units: 84},
			{Kind: KindReLU},
			{Kind: KindDense, Units: classes},
		}
	case "resnet20":
		s.Layers = append(convNorm(16, 0), Layer{Kind: KindReLU})
		for stage, filters := range []int{16, 32, 64} {
			for block := range 3 {
				stride := 0
				if stage > 0 && block == 0 {
					stride = 2
				}
				s.Layers = append(s.Layers, convNorm(filters, stride)...)
				s.Layers = append(s.Layers, Layer{Kind: KindReLU})
				s.Layers = append(s.Layers, convNorm(filters, 0)...)
				// Back over the block's five layers to what went into it.
				s.Layers = append(s.Layers, Layer{Kind: KindAdd, Back: 6, Stride: stride}, Layer{Kind: KindReLU})
			}
		}
		s.Layers = append(s.Layers, Layer{Kind: KindGlobalAvg}, Layer{Kind: KindDense, Units: classes})
	default:
		return Spec{}, fmt.Errorf("%w %.40q, known are: %s", ErrUnknownModel, name, strings.Join(Names(), ", "))
	}
	if err := s.Validate(); err != nil {
		return Spec{}, fmt.Errorf("model %s for input %v: %w", name, in, err)
	}
	return s, nil
}

// lenetSide is the least height and width with which a window of lenet5's second
// pool fits.
const lenetSide = 12

// convNorm is a padded 3x3 convolution without a bias and its normalisation.
func convNorm(filters, stride int) []Layer {
	return []Layer{
		{Kind: KindConv2D, Filters: filters, Kernel: 3, Stride: stride, Padding: PaddingSame, NoBias: true},
		{Kind: KindBatchNorm},
	}
}
