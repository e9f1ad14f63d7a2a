// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"fmt"
	"math"

	"disdel/internal/nn/kernel"
)

// KindAdam is the one kind of optimizer there is.
const KindAdam = "adam"

// ErrOptimizer is wrapped by every error about an optimizer's fields.
var ErrOptimizer = errors.New("nn: bad optimizer")

// Optimizer says how a gradient changes the weights. Adam follows Keras:
//
//	alpha = LearningRate * sqrt(1 - Beta2^t) / (1 - Beta1^t)
//	m += (g - m) * (1 - Beta1)
//	v += (g*g - v) * (1 - Beta2)
//	w -= alpha * m / (sqrt(v) + Epsilon)
//
// where t counts steps from 1. PyTorch places Epsilon elsewhere.
type Optimizer struct {
	Kind         string  `json:"kind"`
	LearningRate float64 `json:"learning_rate"`
	Beta1        float64 `json:"beta1"`
	Beta2        float64 `json:"beta2"`
	Epsilon      float64 `json:"epsilon"`
}

// Adam returns Keras's Adam with the given learning rate (Keras's own is
// 0.001): Beta1 0.9, Beta2 0.999, Epsilon 1e-7.
func Adam(learningRate float64) Optimizer {
	return Optimizer{Kind: KindAdam, LearningRate: learningRate, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}
}

// Validate says which field is out of its range: LearningRate and Epsilon in
// (0, 1e6], Beta1 and Beta2 in [0, 1).
func (o Optimizer) Validate() error {
	if o.Kind != KindAdam {
		return fmt.Errorf("%w: kind %.40q, known is %q", ErrOptimizer, o.Kind, KindAdam)
	}
	// The comparisons are written so that NaN fails them.
	for _, f := range []struct {
		name  string
		value float64
		ok    bool
	}{
		{"learning rate", o.LearningRate, o.LearningRate > 0 && o.LearningRate <= 1e6},
		{"beta1", o.Beta1, o.Beta1 >= 0 && o.Beta1 < 1},
		{"beta2", o.Beta2, o.Beta2 >= 0 && o.Beta2 < 1},
		{"epsilon", o.Epsilon, o.Epsilon > 0 && o.Epsilon <= 1e6},
	} {
		if !f.ok {
			return fmt.Errorf("%w: %s: %s %v is out of range", ErrOptimizer, o.Kind, f.name, f.value)
		}
	}
	return nil
}

// factors returns the constants of step t, computed in float64 and rounded once.
func (o Optimizer) factors(t int) kernel.AdamFactors {
	unbias1 := 1 - power(o.Beta1, t)
	unbias2 := 1 - power(o.Beta2, t)
	return kernel.AdamFactors{
		Alpha:   float32(o.LearningRate * math.Sqrt(unbias2) / unbias1),
		Decay1:  float32(1 - o.Beta1),
		Decay2:  float32(1 - o.Beta2),
		Epsilon: float32(o.Epsilon),
	}
}

// power returns b^t by repeated squaring: products only, so the same on every
// platform, which math.Pow does not promise.
func power(b float64, t int) float64 {
	p := 1.0
	for ; t > 0; t >>= 1 {
		if t&1 != 0 {
			p = float64(p * b)
		}
		b = float64(b * b)
	}
	return p
}
