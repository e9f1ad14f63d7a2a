// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"

	"disdel/internal/nn/kernel"
)

// Errors of Instance.
var (
	// ErrNonFinite: the loss or a gradient is NaN or infinite.
	ErrNonFinite = errors.New("nn: not finite")
	// ErrInput: records, labels, counts or an arena of the wrong size.
	ErrInput = errors.New("nn: bad input")
	// ErrNotTraining: Step of a program compiled without Train.
	ErrNotTraining = errors.New("nn: program is not compiled for training")
)

// Instance is a program bound to an arena. It is used by one goroutine at a
// time. All views point into the arena and stay valid as long as it does.
type Instance struct {
	program *Program
}

// Bind lays the program over the first Sizes().Total bytes of arena, which
// must be aligned to 64 bytes; bytes beyond are not touched. The content is
// kept: call Init, or fill Weights and Moments, before the first use.
func (p *Program) Bind(arena []byte, set kernel.Set) (*Instance, error) {
	return nil, errors.New("nn: not implemented")
}

// Program returns the program.
func (in *Instance) Program() *Program { return in.program }

// Weights is a view of all parameters, in the order of Spec.Params.
func (in *Instance) Weights() []float32 { return nil }

// Moments are views of Adam's first and second moments, in the order of
// Spec.Params; nil without training.
func (in *Instance) Moments() (m, v []float32) { return nil, nil }

// Gradients is a view of the last step's gradients, in the order of
// Spec.Params; nil without training.
func (in *Instance) Gradients() []float32 { return nil }

// Init sets the weights to Glorot-uniform values that depend on the seed and
// the tensor's index alone, biases and moments to zero.
func (in *Instance) Init(seed uint64) {}

// Step trains on len(y) records, 1..Batch: x holds their pixels, multiplied by
// scale, y their labels, t counts optimizer steps from 1. loss is the mean
// softmax cross-entropy of these records before the update. ErrNonFinite when
// the loss or a gradient is not finite; ErrInput for wrong lengths or labels.
// After an error weights and moments are what they were.
func (in *Instance) Step(x []byte, y []uint16, scale float32, t int) (loss float64, err error) {
	return 0, errors.New("nn: not implemented")
}

// Predict returns the logits [n, classes] of the n records in x, a view that
// is valid until the next call.
func (in *Instance) Predict(x []byte, n int, scale float32) (logits []float32, err error) {
	return nil, errors.New("nn: not implemented")
}

// Evaluate returns the sum of the records' losses, and the class with the
// largest logit (the first of equals) for each record, a view that is valid
// until the next call. With ErrNonFinite both are still returned.
func (in *Instance) Evaluate(x []byte, y []uint16, scale float32) (lossSum float64, predicted []uint16, err error) {
	return 0, nil, errors.New("nn: not implemented")
}
