// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"fmt"
	"math"

	"disdel/internal/nn/kernel"
)

// Errors of Compile, Bind and Instance.
var (
	// ErrNonFinite: the loss or a gradient is NaN or infinite. See Instance.Step for
	// what that leaves.
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
	// Of the step under way: its number, and the set for those who have one thread.
	step   int
	single kernel.Set

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
	joint   *kernel.JointData
	// Where gradients are used as they are made: what takes those of a dense layer's
	// weights, and the others, which are used when the stage is done.
	consumer *kernel.Consumer
	updates  []update

	// Of a norm: the statistics of the batch, and their moving averages.
	mean, variance             []float32
	movingMean, movingVariance []float32
	// earlier is what an add adds.
	earlier []float32
	// made and remade are the input before and after it is made again.
	made, remade []float32
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
// order of Spec.Params; nil unless Config.KeepGradients. After Step they are what the
// optimizer made of them by Optimizer.L2 and ClipNorm. Undefined before the first step.
func (in *Instance) Gradients() []float32 {
	if !in.program.cfg.KeepGradients {
		return nil
	}
	return in.gradients
}

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
	// records are a part of it. Only dropout and Augment need it.
	First int
	// Seed and Replica, with Step, decide what dropout drops and what Augment
	// does. Other programs do not need them.
	Seed    uint64
	Replica int
}

// Step trains on a batch. loss is the mean softmax cross-entropy of its records
// before the update, as training sees them: augmented, after dropout, normalised by the
// batch's statistics, with smoothed labels. The gradient is that of the mean. ErrNonFinite when the
// loss, a gradient or a statistic is not finite; ErrInput for wrong lengths or
// labels. After an error weights and moments are what they were, but for a gradient
// that is not finite though the loss is: it may be found when some are changed already.
// Then they are to be filled anew.
func (in *Instance) Step(s StepInput) (loss float64, err error) {
	if loss, err = in.pass(s); err == nil {
		in.update(s.Step)
	}
	return loss, err
}

// Gradient does what Step does, but for the update: Gradients has the result,
// weights, moments and moving statistics are what they were. It needs
// Config.KeepGradients.
func (in *Instance) Gradient(s StepInput) (loss float64, err error) {
	if in.program.cfg.Train && !in.program.cfg.KeepGradients {
		return 0, fmt.Errorf("%w: the program keeps no gradients", ErrInput)
	}
	return in.pass(s)
}

// pass goes forward and backward. Gradients are kept, or used.
func (in *Instance) pass(s StepInput) (loss float64, err error) {
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
	in.step = s.Step
	piece, sum := in.program.cfg.MicroBatch, 0.0
	for from := 0; from < n; from += piece {
		to := min(from+piece, n)
		p := &part{StepInput: s, from: from, last: to == n}
		in.forward(in.records(s.Pixels, s.Values, s.Scale, from), to-from, p)
		sum = in.loss(sum, s.Labels[from:to], in.program.cfg.LabelSmoothing)
		if loss = sum / float64(n); !finite(loss) {
			return loss, fmt.Errorf("%w: loss %v at step %d", ErrNonFinite, loss, s.Step)
		}
		for i := range in.stages {
			if b := &in.stages[i]; !kernel.Finite(b.mean) || !kernel.Finite(b.variance) {
				return loss, fmt.Errorf("%w: statistics of stage %d at step %d, loss %v", ErrNonFinite, i, s.Step, loss)
			}
		}
		if !in.backward(s.Labels[from:to], 1/float64(n), p) {
			return loss, fmt.Errorf("%w: gradient at step %d, loss %v", ErrNonFinite, s.Step, loss)
		}
	}
	if !in.program.consumes && !in.set.Finite(in.gradients) {
		return loss, fmt.Errorf("%w: gradient at step %d, loss %v", ErrNonFinite, s.Step, loss)
	}
	return loss, nil
}

// records returns the records of a call from number first on.
func (in *Instance) records(pixels []byte, values []float32, scale float32, first int) kernel.Input {
	at := first * in.program.spec.Input.Elements()
	if values != nil {
		return kernel.Input{Values: values[at:]}
	}
	return kernel.Input{Pixels: pixels[at:], Scale: scale}
}

// part is a range of the records of a step, from the record from on.
type part struct {
	StepInput
	from int
	last bool // no other follows
}

// update changes weights and moments by the gradients, unless they are used already,
// and the moving statistics by those of the batch.
func (in *Instance) update(t int) {
	if !in.program.consumes {
		in.program.cfg.Optimizer.Apply(in.set, in.program.params, t, in.weights[:in.program.learn], in.gradients, in.m, in.v)
	}
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
	in.forward(in.records(x, nil, scale, 0), n, nil)
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
	classes, piece := in.program.spec.Classes, in.program.cfg.MicroBatch
	for from := 0; from < len(y); from += piece {
		to := min(from+piece, len(y))
		in.forward(in.records(x, nil, scale, from), to-from, nil)
		lossSum = in.loss(lossSum, y[from:to], 0)
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
func (in *Instance) forward(x kernel.Input, n int, p *part) {
	if size := n * in.program.spec.Input.Elements(); in.input == nil {
		// The first stage reads it as it is.
	} else if x.Values != nil {
		copy(in.input, x.Values[:size])
	} else {
		in.set.Convert(in.input, x.Pixels[:size], x.Scale)
	}
	if p != nil {
		in.augment(n, p)
	}
	in.rewind()
	if in.input != nil {
		x = kernel.Input{Values: in.input}
	}
	for i := range in.stages {
		s := &in.stages[i]
		switch s.kind {
		case stageConv:
			in.set.ConvForward(s.conv, n, s.x, s.w, s.bias, s.y, s.arg, in.scratch)
		case stageDense:
			in.set.DenseForward(s.dense, n, s.x, s.w, s.bias, s.y, in.scratch)
		case stageJoint:
			s.joint.X = x
			in.set.JointForward(s.geometry(), n, s.joint)
			if p == nil {
				s.joint.X = kernel.Input{}
			}
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
		case stageAdd:
			in.set.AddResidual(s.residual, n, s.earlier, s.y)
		case stageCopy:
			copy(s.y, s.x[:n*s.inLen])
		case stageGlobalAvg:
			kernel.GlobalAvg(s.global, n, s.x, s.y)
		}
	}
}

// loss adds the records' losses to sum in their order.
func (in *Instance) loss(sum float64, y []uint16, smoothing float64) float64 {
	classes := in.program.spec.Classes
	for i, label := range y {
		logits := in.logits[i*classes:][:classes]
		if smoothing == 0 {
			sum += kernel.CrossEntropy(logits, int(label))
		} else {
			sum += kernel.SmoothCrossEntropy(logits, int(label), smoothing)
		}
	}
	return sum
}

// backward adds the gradients of the sum of the records' losses, times factor,
// to the gradients of the parameters, which start from zero at the first part
// and are complete after the last. Records are added in order, so a batch may come
// in parts; not for models with batchnorm, whose statistics are those of the whole
// batch. If gradients are used as they are made, it says whether all were finite.
func (in *Instance) backward(y []uint16, factor float64, p *part) (finite bool) {
	classes, n := in.program.spec.Classes, len(y)
	smoothing := in.program.cfg.LabelSmoothing
	for i, label := range y {
		logits := in.logits[i*classes:][:classes]
		if smoothing == 0 {
			kernel.CrossEntropyGradient(logits, int(label), factor)
		} else {
			kernel.SmoothCrossEntropyGradient(logits, int(label), smoothing, factor)
		}
	}
	for i := len(in.stages) - 1; i >= 0; i-- {
		in.remake(i, n)
		s := &in.stages[i]
		s.grad.First, s.grad.Last = p.from == 0, p.last
		// The gradient of a value takes the value's place.
		dx := s.x
		if !s.inputDue {
			dx = nil
		}
		in.maskAdds(s, n)
		switch s.kind {
		case stageConv:
			in.set.ConvBackward(s.conv, n, s.x, s.w, s.arg, s.y, s.grad, dx, in.scratch)
		case stageDense:
			in.set.DenseBackward(s.dense, n, s.x, s.w, s.y, s.grad, dx, in.scratch)
		case stageJoint:
			d := s.joint
			d.ConvGrad.First, d.ConvGrad.Last = s.grad.First, s.grad.Last
			d.DenseGrad.First, d.DenseGrad.Last = s.grad.First, s.grad.Last
			in.set.JointBackward(s.geometry(), n, d)
			d.X = kernel.Input{}
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
		case stageAdd:
			// The gradient of the sum is that of what is added to, in its place; the
			// other is due in gatherAdds.
		case stageCopy:
			if dx != nil {
				kernel.CopyGradient(s.x, s.y[:n*s.inLen], dx, s.rectified)
			}
		case stageGlobalAvg:
			if dx != nil {
				kernel.GlobalAvgBackward(s.global, n, s.x, s.y, dx)
			}
		}
		in.gatherAdds(s, n)
		if in.program.consumes && !in.consume(s) {
			return false
		}
	}
	return true
}
