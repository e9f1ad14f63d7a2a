// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"disdel/internal/nn/kernel"
)

// Errors of Compile, Bind and Instance.
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
	set     kernel.Set
	team    *kernel.Team

	weights, gradients, m, v []float32
	scratch                  []float32
	predicted                []uint16
	stages                   []bound
	input, logits            []float32
}

// bound is a stage with its slices of the arena.
type bound struct {
	stage
	x, y    []float32 // input and output values, later their gradients
	arg     []uint8
	w, bias []float32
	grad    kernel.Gradient
}

// Bind lays the program over the first Sizes().Total bytes of arena, which
// must be aligned to 64 bytes; bytes beyond are never touched. The content is
// kept: call Init, or fill Weights and Moments, before the first use. With more
// than one thread the instance has goroutines, which Close ends.
func (p *Program) Bind(arena []byte, set kernel.Set) (*Instance, error) {
	if int64(len(arena)) < p.sizes.Total {
		return nil, fmt.Errorf("%w: arena of %d bytes, the program needs %d", ErrInput, len(arena), p.sizes.Total)
	}
	if a := uintptr(unsafe.Pointer(unsafe.SliceData(arena))) % alignment; a != 0 {
		return nil, fmt.Errorf("%w: arena starts %d bytes after a multiple of %d", ErrInput, a, alignment)
	}
	if set.Name == "" {
		return nil, fmt.Errorf("%w: empty kernel set", ErrInput)
	}
	in := &Instance{program: p, stages: make([]bound, len(p.stages))}
	in.team = kernel.NewTeam(p.cfg.Threads, p.cfg.Spin)
	in.set = set.On(in.team)
	at := int64(0)
	region := func(bytes int64) []byte {
		at += bytes
		return arena[at-bytes : at : at]
	}
	one := p.sizes.Weights
	in.weights = floats(region(one))[:p.count:p.count]
	if p.cfg.Train {
		in.m = floats(region(one))[:p.count:p.count]
		in.v = floats(region(one))[:p.count:p.count]
		in.gradients = floats(region(one))[:p.count:p.count]
	}
	activations := region(p.sizes.Activations)
	in.scratch = floats(region(4 * p.scratch))
	partials := floats(region(4 * p.partials))
	predicted := region(p.sizes.Workspace - 4*p.scratch - 4*p.partials)
	in.predicted = unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(predicted))), p.cfg.Batch)

	bytes := func(b *buffer) []byte { return activations[b.offset : b.offset+b.bytes : b.offset+b.bytes] }
	for i, s := range p.stages {
		b := bound{stage: s, x: floats(bytes(p.values[s.in])), y: floats(bytes(p.values[s.out]))}
		if s.arg != nil {
			b.arg = bytes(s.arg)
		}
		if s.learns() {
			b.w, b.bias = p.params[s.weight].of(in.weights), p.params[s.weight+1].of(in.weights)
			if p.cfg.Train {
				b.grad.W, b.grad.Bias = p.params[s.weight].of(in.gradients), p.params[s.weight+1].of(in.gradients)
				if s.kind == stageConv {
					b.grad.Partial = partials[s.partial:][:s.conv.Partials()]
				}
			}
		}
		in.stages[i] = b
	}
	in.input = floats(bytes(p.values[0]))
	in.logits = in.stages[len(in.stages)-1].y
	return in, nil
}

// of returns the tensor's part of a flat vector.
func (p Param) of(flat []float32) []float32 { return flat[p.Offset : p.Offset+p.Len : p.Offset+p.Len] }

// floats views bytes, aligned to four at least, as float32.
func floats(b []byte) []float32 {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

// Close ends the instance's goroutines; it is not used afterwards. Without
// threads there is nothing to end. A second Close does nothing.
func (in *Instance) Close() { in.team.Close() }

// Program returns the program.
func (in *Instance) Program() *Program { return in.program }

// Weights is a view of all parameters, in the order of Spec.Params.
func (in *Instance) Weights() []float32 { return in.weights }

// Moments are views of Adam's first and second moments, in the order of
// Spec.Params; nil without training.
func (in *Instance) Moments() (m, v []float32) { return in.m, in.v }

// Gradients is a view of the last step's gradients, in the order of
// Spec.Params; nil without training. Undefined before the first step.
func (in *Instance) Gradients() []float32 { return in.gradients }

// Step trains on len(y) records, 1..Batch: x holds their pixels [n, H, W, C],
// which are multiplied by scale, y their labels; t counts optimizer steps from
// 1. loss is the mean softmax cross-entropy of these records before the update,
// and the gradient is that of the mean. ErrNonFinite when the loss or a gradient
// is not finite; ErrInput for wrong lengths or labels. After an error weights
// and moments are what they were.
func (in *Instance) Step(x []byte, y []uint16, scale float32, t int) (loss float64, err error) {
	if !in.program.cfg.Train {
		return 0, ErrNotTraining
	}
	if t < 1 {
		return 0, fmt.Errorf("%w: step number %d, counted from 1", ErrInput, t)
	}
	if err := in.check(x, len(y), y); err != nil {
		return 0, err
	}
	in.forward(x, len(y), scale)
	sum := in.loss(y)
	loss = sum / float64(len(y))
	if !finite(loss) {
		return loss, fmt.Errorf("%w: loss %v at step %d", ErrNonFinite, loss, t)
	}
	in.backward(y, 1/float64(len(y)), true, true)
	if !in.set.Finite(in.gradients) {
		return loss, fmt.Errorf("%w: gradient at step %d, loss %v", ErrNonFinite, t, loss)
	}
	in.set.Adam(in.weights, in.gradients, in.m, in.v, in.program.cfg.Optimizer.factors(t))
	return loss, nil
}

// Predict returns the logits [n, classes] of the n records in x, 1..Batch, a
// view that is valid until the next call.
func (in *Instance) Predict(x []byte, n int, scale float32) (logits []float32, err error) {
	if err := in.check(x, n, nil); err != nil {
		return nil, err
	}
	in.forward(x, n, scale)
	return in.logits[:n*in.program.spec.Classes], nil
}

// Evaluate returns the sum of the losses of len(y) records, 1..Batch, and for
// each the class with the largest logit (the first of equals), a view that is
// valid until the next call. If the sum is not finite it returns both all the
// same, and ErrNonFinite.
func (in *Instance) Evaluate(x []byte, y []uint16, scale float32) (lossSum float64, predicted []uint16, err error) {
	if err := in.check(x, len(y), y); err != nil {
		return 0, nil, err
	}
	in.forward(x, len(y), scale)
	lossSum = in.loss(y)
	predicted = in.predicted[:len(y)]
	classes := in.program.spec.Classes
	for i := range predicted {
		predicted[i] = uint16(kernel.ArgMax(in.logits[i*classes:][:classes]))
	}
	if !finite(lossSum) {
		return lossSum, predicted, fmt.Errorf("%w: sum of losses %v", ErrNonFinite, lossSum)
	}
	return lossSum, predicted, nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// check refuses records and labels that do not fit the program. y may be nil.
func (in *Instance) check(x []byte, n int, y []uint16) error {
	p := in.program
	if n < 1 || n > p.cfg.Batch {
		return fmt.Errorf("%w: %d records, not in 1..%d", ErrInput, n, p.cfg.Batch)
	}
	if want := n * p.spec.Input.Elements(); len(x) != want {
		return fmt.Errorf("%w: %d bytes for %d records of %v, want %d", ErrInput, len(x), n, p.spec.Input, want)
	}
	for i, label := range y {
		if int(label) >= p.spec.Classes {
			return fmt.Errorf("%w: label %d of record %d, the model has %d classes", ErrInput, label, i, p.spec.Classes)
		}
	}
	return nil
}

// forward leaves the logits of n records in their buffer.
func (in *Instance) forward(x []byte, n int, scale float32) {
	in.set.Convert(in.input, x, scale)
	for i := range in.stages {
		s := &in.stages[i]
		switch s.kind {
		case stageConv:
			in.set.ConvForward(s.conv, n, s.x, s.w, s.bias, s.y, s.arg, in.scratch)
		case stageDense:
			in.set.DenseForward(s.dense, n, s.x, s.w, s.bias, s.y, in.scratch)
		case stageReLU:
			kernel.ReLU(s.x[:n*s.inLen])
		case stagePool:
			kernel.MaxPool(s.pool, n, s.x, s.y, s.arg)
		}
	}
}

// loss sums the records' losses in their order.
func (in *Instance) loss(y []uint16) (sum float64) {
	classes := in.program.spec.Classes
	for i, label := range y {
		sum += kernel.CrossEntropy(in.logits[i*classes:][:classes], int(label))
	}
	return sum
}

// backward adds the gradients of the sum of the records' losses, times factor,
// to the gradients of the parameters, which start from zero if first is set and
// are complete if last is. Records are added in order, so the rest of a batch
// may be added by another forward and backward.
func (in *Instance) backward(y []uint16, factor float64, first, last bool) {
	classes, n := in.program.spec.Classes, len(y)
	for i, label := range y {
		kernel.CrossEntropyGradient(in.logits[i*classes:][:classes], int(label), factor)
	}
	for i := len(in.stages) - 1; i >= 0; i-- {
		s := &in.stages[i]
		s.grad.First, s.grad.Last = first, last
		// The gradient of a value takes the value's place.
		dx := s.x
		if !s.inputDue {
			dx = nil
		}
		switch s.kind {
		case stageConv:
			in.set.ConvBackward(s.conv, n, s.x, s.w, s.arg, s.y, s.grad, dx, in.scratch)
		case stageDense:
			in.set.DenseBackward(s.dense, n, s.x, s.w, s.y, s.grad, dx, in.scratch)
		case stageReLU:
			// Whoever wrote the gradient of a rectified value has masked it.
		case stagePool:
			if dx != nil {
				kernel.MaxPoolBackward(s.pool, n, s.arg, s.y, dx)
			}
		}
	}
}
