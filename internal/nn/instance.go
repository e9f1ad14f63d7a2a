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
	scratch, zeros           []float32
	predicted                []uint16
	stages                   []bound
	input, logits            []float32
}

// bound is a stage with its slices of the arena.
type bound struct {
	stage
	x, y    []float32 // input and output values, later their gradients
	arg     []uint8
	w, bias []float32 // of a norm: gamma and beta
	grad    kernel.Gradient

	// Of a norm: the statistics of the batch, and their moving averages.
	mean, variance             []float32
	movingMean, movingVariance []float32
}

// Bind lays the program over the first Sizes().Total bytes of arena, which
// must be aligned to 64 bytes; bytes beyond are never touched. Weights and moments
// are kept: call Init, or fill Weights and Moments, before the first use. With more
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
	in.weights = floats(region(p.sizes.Weights))[:p.count:p.count]
	if p.cfg.Train {
		for i, moment := range []*[]float32{&in.m, &in.v} {
			if i < p.cfg.Optimizer.Moments() {
				*moment = floats(region(p.sizes.Gradients))[:p.learn:p.learn]
			}
		}
		in.gradients = floats(region(p.sizes.Gradients))[:p.learn:p.learn]
	}
	activations := region(p.sizes.Activations)
	in.scratch = floats(region(4 * p.scratch))
	partials := floats(region(4 * p.partials))
	// A layer without a bias has zeros for one, which nothing changes, and its
	// gradient is dropped.
	in.zeros = floats(region(4 * p.zeros))
	in.Restore()
	var dropped []float32
	if p.cfg.Train {
		dropped = floats(region(4 * p.zeros))
	}
	predicted := region(align(2 * int64(p.cfg.Batch)))
	in.predicted = unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(predicted))), p.cfg.Batch)

	bytes := func(b *buffer) []byte { return activations[b.offset : b.offset+b.bytes : b.offset+b.bytes] }
	for i, s := range p.stages {
		b := bound{stage: s, x: floats(bytes(p.values[s.in])), y: floats(bytes(p.values[s.out]))}
		if s.arg != nil {
			b.arg = bytes(s.arg)
		}
		if s.learns() {
			weight := p.params[s.weight]
			b.w = weight.of(in.weights)
			if s.noBias {
				b.bias = in.zeros[:weight.Shape[len(weight.Shape)-1]]
			} else {
				b.bias = p.params[s.weight+1].of(in.weights)
			}
			if p.cfg.Train {
				b.grad.W = weight.of(in.gradients)
				if s.noBias {
					b.grad.Bias = dropped[:len(b.bias)]
				} else {
					b.grad.Bias = p.params[s.weight+1].of(in.gradients)
				}
				if s.kind == stageConv {
					b.grad.Partial = partials[s.partial:][:s.conv.Partials()]
				}
			}
		}
		if s.kind == stageNorm {
			b.movingMean, b.movingVariance = p.params[s.state].of(in.weights), p.params[s.state+1].of(in.weights)
			if s.stats != nil {
				stats := bytes(s.stats)
				b.mean, b.variance = floats(stats[:len(stats)/2])[:s.norm.C], floats(stats[len(stats)/2:])[:s.norm.C]
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

// Restore makes the instance usable again after its part of the arena has held
// something else. Weights and moments are to be filled anew.
func (in *Instance) Restore() { clear(in.zeros) }

// Close ends the instance's goroutines; it is not used afterwards. Without
// threads there is nothing to end. A second Close does nothing.
func (in *Instance) Close() { in.team.Close() }

// Program returns the program.
func (in *Instance) Program() *Program { return in.program }

// Weights is a view of all parameters, in the order of Spec.Params: what is
// learned, then the state.
func (in *Instance) Weights() []float32 { return in.weights }

// Moments are views of the optimizer's first and second moments of what is
// learned, in the order of Spec.Params; nil where Optimizer.Moments says that
// there are none, and without training.
func (in *Instance) Moments() (m, v []float32) { return in.m, in.v }

// Gradients is a view of the last step's gradients of what is learned, in the
// order of Spec.Params; nil without training. Undefined before the first step.
func (in *Instance) Gradients() []float32 { return in.gradients }

// StepInput is what one step trains on.
type StepInput struct {
	// Pixels holds the records [n, H, W, C], n in 1..Batch; they are multiplied
	// by Scale.
	Pixels []byte
	// Values holds the records as float32, scaled already, in place of Pixels; the
	// bits are those of Pixels if it is what [kernel.Set].Convert makes of them.
	Values []float32
	// Labels has n classes.
	Labels []uint16
	Scale  float32
	// Step counts the optimizer's steps from 1.
	Step int
	// First is the place of the first record in the step's batch, where the
	// records are a part of it. Only dropout needs it.
	First int
	// Seed and Replica, with Step, decide what dropout drops. Other models do
	// not need them.
	Seed    uint64
	Replica int
}

// Step trains on a batch. loss is the mean softmax cross-entropy of its records
// before the update, as training sees them: after dropout, normalised by the
// batch's statistics. The gradient is that of the mean. ErrNonFinite when the
// loss, a gradient or a statistic is not finite; ErrInput for wrong lengths or
// labels. After an error weights and moments are what they were.
func (in *Instance) Step(s StepInput) (loss float64, err error) {
	if loss, err = in.Gradient(s); err == nil {
		in.update(s.Step)
	}
	return loss, err
}

// Gradient does what Step does, but for the update: Gradients has the result,
// weights, moments and moving statistics are what they were.
func (in *Instance) Gradient(s StepInput) (loss float64, err error) {
	if !in.program.cfg.Train {
		return 0, ErrNotTraining
	}
	if s.Step < 1 || s.First < 0 {
		return 0, fmt.Errorf("%w: step number %d, counted from 1, from record %d", ErrInput, s.Step, s.First)
	}
	n := len(s.Labels)
	if err := in.checkStep(s); err != nil {
		return 0, err
	}
	size, piece, sum := in.program.spec.Input.Elements(), in.program.cfg.MicroBatch, 0.0
	for from := 0; from < n; from += piece {
		to := min(from+piece, n)
		p := &part{StepInput: s, from: from, last: to == n}
		var pixels []byte
		if s.Values == nil {
			pixels = s.Pixels[from*size : to*size]
		}
		in.forward(pixels, to-from, s.Scale, p)
		sum = in.loss(sum, s.Labels[from:to])
		if loss = sum / float64(n); !finite(loss) {
			return loss, fmt.Errorf("%w: loss %v at step %d", ErrNonFinite, loss, s.Step)
		}
		in.backward(s.Labels[from:to], 1/float64(n), p)
	}
	if !in.set.Finite(in.gradients) {
		return loss, fmt.Errorf("%w: gradient at step %d, loss %v", ErrNonFinite, s.Step, loss)
	}
	for i := range in.stages {
		if b := &in.stages[i]; !kernel.Finite(b.mean) || !kernel.Finite(b.variance) {
			return loss, fmt.Errorf("%w: statistics of stage %d at step %d, loss %v", ErrNonFinite, i, s.Step, loss)
		}
	}
	return loss, nil
}

// part is a range of the records of a step, from the record from on.
type part struct {
	StepInput
	from int
	last bool // no other follows
}

// update changes weights and moments by the gradients, and the moving
// statistics by those of the batch.
func (in *Instance) update(t int) {
	in.program.cfg.Optimizer.Apply(in.set, t, in.weights[:in.program.learn], in.gradients, in.m, in.v)
	// Corrected as Adam's moments are: the first step leaves nothing of what
	// stood there before, and a moving statistic is always a mean of real ones.
	momentum := normMomentum * (1 - power(normMomentum, t-1)) / (1 - power(normMomentum, t))
	for i := range in.stages {
		s := &in.stages[i]
		kernel.Blend(s.movingMean, s.mean, momentum)
		kernel.Blend(s.movingVariance, s.variance, momentum)
	}
}

// Predict returns the logits [n, classes] of the n records in x, 1..MicroBatch, a
// view that is valid until the next call.
func (in *Instance) Predict(x []byte, n int, scale float32) (logits []float32, err error) {
	if most := in.program.cfg.MicroBatch; n > most {
		return nil, fmt.Errorf("%w: %d records, not in 1..%d", ErrInput, n, most)
	}
	if err := in.check(x, n, nil); err != nil {
		return nil, err
	}
	in.forward(x, n, scale, nil)
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
	predicted = in.predicted[:len(y)]
	size, classes, piece := in.program.spec.Input.Elements(), in.program.spec.Classes, in.program.cfg.MicroBatch
	for from := 0; from < len(y); from += piece {
		to := min(from+piece, len(y))
		in.forward(x[from*size:to*size], to-from, scale, nil)
		lossSum = in.loss(lossSum, y[from:to])
		for i := range predicted[from:to] {
			predicted[from+i] = uint16(kernel.ArgMax(in.logits[i*classes:][:classes]))
		}
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
	if y == nil {
		return nil
	}
	return in.checkLabels(y)
}

// checkLabels refuses labels that do not fit the program.
func (in *Instance) checkLabels(y []uint16) error {
	p := in.program
	if n := len(y); n < 1 || n > p.cfg.Batch {
		return fmt.Errorf("%w: %d records, not in 1..%d", ErrInput, n, p.cfg.Batch)
	}
	for i, label := range y {
		if int(label) >= p.spec.Classes {
			return fmt.Errorf("%w: label %d of record %d, the model has %d classes", ErrInput, label, i, p.spec.Classes)
		}
	}
	return nil
}

// checkStep is check for either form of the records.
func (in *Instance) checkStep(s StepInput) error {
	size := in.program.spec.Input.Elements()
	switch want := len(s.Labels) * size; {
	case s.Values == nil:
		return in.check(s.Pixels, len(s.Labels), s.Labels)
	case s.Pixels != nil || len(s.Values) != want:
		return fmt.Errorf("%w: %d values and %d bytes for %d records of %v, want %d values or bytes",
			ErrInput, len(s.Values), len(s.Pixels), len(s.Labels), in.program.spec.Input, want)
	default:
		return in.checkLabels(s.Labels)
	}
}

// forward leaves the logits of n records in their buffer: as training sees them
// if p is not nil, else as they are.
func (in *Instance) forward(x []byte, n int, scale float32, p *part) {
	if p != nil && p.Values != nil {
		size := in.program.spec.Input.Elements()
		copy(in.input, p.Values[p.from*size:][:n*size])
	} else {
		in.set.Convert(in.input, x, scale)
	}
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
		case stageAvgPool:
			kernel.AvgPool(s.pool, n, s.x, s.y)
		case stageNorm:
			mean, variance := s.movingMean, s.movingVariance
			if p != nil {
				mean, variance = s.mean, s.variance
				in.set.NormStatistics(s.norm, n, s.x, mean, variance)
			}
			in.set.NormForward(s.norm, n, s.x, mean, variance, s.w, s.bias, s.y, s.arg, in.scratch)
		case stageDropout:
			if p != nil {
				s.drop.apply(s.x[:n*s.inLen], s.drop.mask(p.StepInput), (p.First+p.from)*s.inLen)
			}
		}
	}
}

// loss adds the records' losses to sum in their order.
func (in *Instance) loss(sum float64, y []uint16) float64 {
	classes := in.program.spec.Classes
	for i, label := range y {
		sum += kernel.CrossEntropy(in.logits[i*classes:][:classes], int(label))
	}
	return sum
}

// backward adds the gradients of the sum of the records' losses, times factor,
// to the gradients of the parameters, which start from zero at the first part
// and are complete after the last. Records are added in order, so a batch may come
// in parts; not for models with batchnorm, whose statistics are those of the whole
// batch.
func (in *Instance) backward(y []uint16, factor float64, p *part) {
	classes, n := in.program.spec.Classes, len(y)
	for i, label := range y {
		kernel.CrossEntropyGradient(in.logits[i*classes:][:classes], int(label), factor)
	}
	for i := len(in.stages) - 1; i >= 0; i-- {
		s := &in.stages[i]
		s.grad.First, s.grad.Last = p.from == 0, p.last
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
		case stageAvgPool:
			if dx != nil {
				kernel.AvgPoolBackward(s.pool, n, s.x, s.y, dx, s.rectified)
			}
		case stageNorm:
			in.set.NormBackward(s.norm, n, s.x, s.mean, s.variance, s.w, s.arg, s.y, s.grad.W, s.grad.Bias, dx, in.scratch)
		case stageDropout:
			if dx != nil {
				s.drop.apply(dx[:n*s.inLen], s.drop.mask(p.StepInput), (p.First+p.from)*s.inLen)
			}
		}
	}
}
