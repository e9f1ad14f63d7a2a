// SPDX-License-Identifier: Apache-2.0

package nn

import "disdel/internal/nn/kernel"

// Schedules of the learning rate.
const (
	// ScheduleConstant leaves it as it is.
	ScheduleConstant = "constant"
	// ScheduleStep divides it by ten after half of the steps, and again after three
	// quarters: He et al. 2015, section 4.2.
	ScheduleStep = "step"
	// ScheduleCosine lowers it along half a turn of the cosine, to almost zero in
	// the last step (Loshchilov and Hutter 2017, without restarts).
	ScheduleCosine = "cosine"
)

// Schedules returns the names of all.
func Schedules() []string { return []string{ScheduleConstant, ScheduleStep, ScheduleCosine} }

// Rate returns the learning rate of step t, counted from 1. It depends on the
// optimizer and t alone, and is the same on every platform.
func (o Optimizer) Rate(t int) float64 {
	if t < o.WarmupSteps {
		return o.LearningRate * float64(t) / float64(o.WarmupSteps)
	}
	switch o.Schedule {
	case ScheduleStep:
		switch done, all := int64(t)-1, int64(o.ScheduleSteps); {
		case 4*done >= 3*all:
			return o.LearningRate / 100
		case 2*done >= all:
			return o.LearningRate / 10
		}
	case ScheduleCosine:
		// The first step after the warm-up has the whole rate.
		past := float64(max(0, t-1-o.WarmupSteps)) / float64(o.ScheduleSteps-o.WarmupSteps)
		return o.LearningRate / 2 * (1 + kernel.HalfTurnCos(min(past, 1)))
	}
	return o.LearningRate
}

// regularise completes the gradients of what is learned by that of the penalty, and
// then bounds the length of the whole vector.
func (o Optimizer) regularise(params []Param, weights, gradients []float32) {
	if o.L2 != 0 {
		for _, p := range Learned(params) {
			if p.penalised() {
				kernel.AddPenalty(p.of(gradients), p.of(weights), float32(o.L2))
			}
		}
	}
	if o.ClipNorm != 0 {
		if length := kernel.Length(gradients); length > o.ClipNorm {
			kernel.Scale(gradients, float32(o.ClipNorm/length))
		}
	}
}

// penalised says that L2 applies to the tensor: weights, not biases or what a
// normalisation learns.
func (p Param) penalised() bool { return len(p.Shape) > 1 }
