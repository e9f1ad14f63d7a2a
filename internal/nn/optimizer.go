// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"disdel/internal/nn/kernel"
)

// Kinds of optimizers.
const (
	KindAdam  = "adam"
	KindAdamW = "adamw"
	KindSGD   = "sgd"
)

// ErrOptimizer is wrapped by every error about an optimizer's fields.
var ErrOptimizer = errors.New("nn: bad optimizer")

// Optimizer says how a gradient changes the weights. Kind says which of the
// other fields are used; the others must be zero. All follow Keras; t counts
// steps from 1.
//
// adam:
//
//	alpha = LearningRate * sqrt(1 - Beta2^t) / (1 - Beta1^t)
//	m += (g - m) * (1 - Beta1)
//	v += (g*g - v) * (1 - Beta2)
//	w -= alpha * m / (sqrt(v) + Epsilon)
//
// PyTorch places Epsilon elsewhere. adamw is the same after
//
//	w -= w * WeightDecay * LearningRate
//
// for every learned tensor, biases too. sgd is
//
//	m = Momentum*m - LearningRate*g
//	w += m
//
// and without momentum has no m.
type Optimizer struct {
	Kind         string  `json:"kind"`
	LearningRate float64 `json:"learning_rate"`
	Beta1        float64 `json:"beta1,omitempty"`
	Beta2        float64 `json:"beta2,omitempty"`
	Epsilon      float64 `json:"epsilon,omitempty"`
	Momentum     float64 `json:"momentum,omitempty"`
	WeightDecay  float64 `json:"weight_decay,omitempty"`

	// Schedule is how LearningRate changes from step to step: ScheduleStep or
	// ScheduleCosine, over ScheduleSteps steps; "" is ScheduleConstant, which has no
	// ScheduleSteps. In the first WarmupSteps steps the rate grows in even steps to
	// LearningRate, whatever the schedule.
	Schedule      string `json:"schedule,omitempty"`
	ScheduleSteps int    `json:"schedule_steps,omitempty"`
	WarmupSteps   int    `json:"warmup_steps,omitempty"`
	// L2 adds L2/2 times the sum of the squares of all weights, but not of biases
	// and of what normalisations learn, to what is minimised; losses are reported
	// without it. Unlike WeightDecay it goes through the gradient.
	L2 float64 `json:"l2,omitempty"`
	// ClipNorm, if not zero, is the most that the gradient's length over all tensors
	// may be, the penalty's included; a longer one is scaled down.
	ClipNorm float64 `json:"clip_norm,omitempty"`
}

// Adam returns Keras's Adam with the given learning rate (Keras's own is
// 0.001): Beta1 0.9, Beta2 0.999, Epsilon 1e-7.
func Adam(learningRate float64) Optimizer {
	return Optimizer{Kind: KindAdam, LearningRate: learningRate, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}
}

// AdamW returns Keras's AdamW with the given learning rate (Keras's own is
// 0.001): Adam with WeightDecay 0.004.
func AdamW(learningRate float64) Optimizer {
	o := Adam(learningRate)
	o.Kind, o.WeightDecay = KindAdamW, 0.004
	return o
}

// SGD returns stochastic gradient descent with the given learning rate (Keras's
// own is 0.01) and Momentum 0.9. Keras's default is none, with which the jobs
// here hardly learn.
func SGD(learningRate float64) Optimizer {
	return Optimizer{Kind: KindSGD, LearningRate: learningRate, Momentum: 0.9}
}

// Optimizers returns the names that ParseOptimizer knows, sorted.
func Optimizers() []string { return []string{KindAdam, KindAdamW, KindSGD} }

// ParseOptimizer returns the optimizer of that name with its usual constants.
// A learning rate of zero stands for its usual one too: 0.001 for adam and
// adamw, 0.01 for sgd.
func ParseOptimizer(name string, learningRate float64) (Optimizer, error) {
	compose, usual := Adam, 1e-3
	switch name {
	case KindAdam:
	case KindAdamW:
		compose = AdamW
	case KindSGD:
		compose, usual = SGD, 1e-2
	default:
		return Optimizer{}, fmt.Errorf("%w: kind %.40q, known are: %s", ErrOptimizer, name, strings.Join(Optimizers(), ", "))
	}
	if learningRate == 0 {
		learningRate = usual
	}
	o := compose(learningRate)
	return o, o.Validate()
}

// Validate says which field is out of its range: LearningRate and Epsilon in
// (0, 1e6], Beta1, Beta2 and Momentum in [0, 1), WeightDecay in [0, 1e6] with
// WeightDecay times LearningRate below 1, L2 and ClipNorm in [0, 1e6], WarmupSteps
// below ScheduleSteps where there is a schedule.
func (o Optimizer) Validate() error {
	if !slices.Contains(Optimizers(), o.Kind) {
		return fmt.Errorf("%w: kind %.40q, known are: %s", ErrOptimizer, o.Kind, strings.Join(Optimizers(), ", "))
	}
	adam, decays := o.Kind != KindSGD, o.Kind == KindAdamW
	// The comparisons are written so that NaN fails them.
	for _, f := range []struct {
		name     string
		value    float64
		used, ok bool
	}{
		{"learning rate", o.LearningRate, true, o.LearningRate > 0 && o.LearningRate <= 1e6},
		{"beta1", o.Beta1, adam, o.Beta1 >= 0 && o.Beta1 < 1},
		{"beta2", o.Beta2, adam, o.Beta2 >= 0 && o.Beta2 < 1},
		{"epsilon", o.Epsilon, adam, o.Epsilon > 0 && o.Epsilon <= 1e6},
		{"momentum", o.Momentum, !adam, o.Momentum >= 0 && o.Momentum < 1},
		{"l2", o.L2, true, o.L2 >= 0 && o.L2 <= 1e6},
		{"clip norm", o.ClipNorm, true, o.ClipNorm >= 0 && o.ClipNorm <= 1e6},
		{"weight decay", o.WeightDecay, decays, o.WeightDecay >= 0 && o.WeightDecay <= 1e6 && o.WeightDecay*o.LearningRate < 1},
	} {
		switch {
		case f.used && !f.ok:
			return fmt.Errorf("%w: %s: %s %v is out of range", ErrOptimizer, o.Kind, f.name, f.value)
		case !f.used && f.value != 0:
			return fmt.Errorf("%w: %s: %s is %v, but this kind has none", ErrOptimizer, o.Kind, f.name, f.value)
		}
	}
	return o.validateSchedule()
}

func (o Optimizer) validateSchedule() error {
	constant := o.Schedule == ""
	switch {
	case !constant && o.Schedule != ScheduleStep && o.Schedule != ScheduleCosine:
		return fmt.Errorf("%w: schedule %.40q, known are: %s", ErrOptimizer, o.Schedule, strings.Join(Schedules(), ", "))
	case constant && o.ScheduleSteps != 0:
		return fmt.Errorf("%w: a constant learning rate over %d steps", ErrOptimizer, o.ScheduleSteps)
	case o.WarmupSteps < 0 || !constant && o.WarmupSteps >= o.ScheduleSteps:
		return fmt.Errorf("%w: %d steps of warm-up, %d in all", ErrOptimizer, o.WarmupSteps, o.ScheduleSteps)
	}
	return nil
}

// Moments returns how many moments the optimizer keeps for every learned value:
// two for adam and adamw, one for sgd, none for sgd without momentum.
func (o Optimizer) Moments() int {
	switch {
	case o.Kind != KindSGD:
		return 2
	case o.Momentum != 0:
		return 1
	default:
		return 0
	}
}

// piecewise says that a gradient may be applied piece by piece, which then needs no
// params.
func (o Optimizer) piecewise() bool { return o.L2 == 0 && o.ClipNorm == 0 }

// Apply changes weights and moments by gradients, all of the same length and laid
// out as params says, in step t, counted from 1. m and v are used as far as Moments
// says. Where there is a penalty or a bound the gradients are completed first.
func (o Optimizer) Apply(set kernel.Set, params []Param, t int, weights, gradients, m, v []float32) {
	o.regularise(params, weights, gradients)
	switch rate := o.Rate(t); o.Kind {
	case KindSGD:
		kernel.SGD(weights, gradients, m, kernel.SGDFactors{Rate: float32(rate), Momentum: float32(o.Momentum)})
	case KindAdamW:
		kernel.Decay(weights, float32(o.WeightDecay*rate))
		set.Adam(weights, gradients, m, v, o.adam(t))
	default:
		set.Adam(weights, gradients, m, v, o.adam(t))
	}
}

// adam returns the constants of step t, computed in float64 and rounded once.
func (o Optimizer) adam(t int) kernel.AdamFactors {
	unbias1 := 1 - power(o.Beta1, t)
	unbias2 := 1 - power(o.Beta2, t)
	return kernel.AdamFactors{
		Alpha:   float32(o.Rate(t) * math.Sqrt(unbias2) / unbias1),
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
