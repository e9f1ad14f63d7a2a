// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"fmt"

	"disdel/internal/nn/kernel"
)

// MaxBatch bounds the records of one step.
const MaxBatch = 1 << 16

// Config says what a program is compiled for.
type Config struct {
	// Batch is the largest number of records of one call, 1..MaxBatch.
	Batch int
	// MicroBatch is the most records that are computed at once, 0..Batch, zero
	// meaning Batch. A step goes through a larger batch in pieces, with the same
	// bits, and needs memory for the activations of one piece only; it costs time,
	// as the weights are passed through once for each piece. A model with batchnorm cannot be
	// trained in pieces, see Spec.WholeBatches.
	MicroBatch int
	// Train adds gradients and moments. Without it the program can only
	// Predict and Evaluate, and Optimizer is ignored.
	Train bool
	// Optimizer must be valid if Train is set.
	Optimizer Optimizer
	// LabelSmoothing, in [0, 1), is the share of the target that training spreads
	// evenly over all classes.
	LabelSmoothing float64
	// Augment changes the records that training sees.
	Augment Augment
	// KeepGradients keeps the gradients of a step as a whole: for Instance.Gradient
	// and Instance.Gradients. Otherwise a step uses each for its update as soon as it
	// is made, if the optimizer and MicroBatch allow it, and needs no memory for all.
	KeepGradients bool
	// Remake has the backward pass make outputs of batch normalisations again, which
	// are not kept then: less memory for a little more time, with the same bits.
	// Models without them are as they are.
	Remake bool
	// Threads is how many threads an instance works with, 0..MaxThreads, zero
	// meaning one. Results do not depend on it; the workspace grows by a little
	// with each.
	Threads int
	// Spin makes threads that have nothing to do wait in a loop for some hundreds of
	// microseconds before they sleep. Steps are faster where each thread has a
	// processor for itself, and much slower where not.
	Spin bool
}

// MaxThreads bounds the threads of an instance.
const MaxThreads = 256

// Sizes says exactly how many bytes of the arena each term takes. Each is a
// multiple of 64, alignment included.
type Sizes struct {
	Weights     int64
	Moments     int64 // Optimizer.Moments of learned values; zero without training
	Gradients   int64 // of learned values, or of the stage under way; zero without training
	Activations int64 // input unless it is read as bytes, activations or their gradients, places of maxima, statistics
	Workspace   int64 // scratch of kernels, predicted classes
	Total       int64 // the sum
}

// FLOPs counts the multiplications and additions of convolutions and dense
// layers for one full batch, two per multiply-add, as if nothing were skipped.
type FLOPs struct {
	Forward  int64
	Backward int64
}

// Program is a model compiled for a batch size: a static list of stages over
// one arena. It is immutable and holds no arena, so one program may be bound
// many times.
type Program struct {
	spec   Spec
	cfg    Config
	params []Param
	count  int // values of all parameters
	learn  int // values of those that are learned, the first
	stages []stage
	values []*buffer // of float32
	sizes  Sizes
	flops  FLOPs
	// consumes says that gradients are used as they are made; then gradients is the
	// most float32 values of them that a stage leaves, else it is learn.
	consumes  bool
	gradients int64
	// scratch and partials are the float32 values of workspace that kernels use as
	// they like while they run, and that hold gradients which are not yet added up;
	// zeros is as many as the widest layer without a bias has channels.
	scratch, partials, zeros int64
}

type stageKind int

const (
	stageConv  stageKind = iota // with the ReLU and max-pool after it, if any
	stageDense                  // with the ReLU after it, if any
	stageJoint                  // a first convolution and the dense layer that reads its output
	stageReLU                   // in place, where it follows neither
	stagePool                   // where it follows neither convolution nor batchnorm
	stageAvgPool
	stageNorm    // with the ReLU and max-pool after it, if any
	stageDropout // in place, in training programs only
	stageAdd     // in place, with the ReLU after it, if any
	stageCopy    // where a value is needed again and what follows works in place
	stageGlobalAvg
)

// normMomentum is the share of the old value in a new moving statistic,
// normEpsilon what is added to variances: Keras's.
const (
	normMomentum = 0.99
	normEpsilon  = 1e-3
)

// stage is one operation of the forward pass and its counterpart backward.
type stage struct {
	kind     stageKind
	conv     kernel.Conv
	dense    kernel.Dense
	pool     kernel.Pool
	norm     kernel.Norm
	drop     dropout
	residual kernel.Residual
	global   kernel.GlobalPool
	earlier  int     // of an add: the value that it adds
	adds     []int   // stages that add the value in, in their order; of who consumes it
	again    *buffer // where the value in is made again for the backward pass, nil if it is kept
	in, out  int     // values: indices into Program.values, equal for stages in place
	inLen    int     // float32 values of one record
	outLen   int     // the same of the output
	weight   int     // index into Program.params; the bias, or beta, follows it
	noBias   bool    // no bias follows
	state    int     // index into Program.params of a norm's moving mean; the variance follows it
	dense2   int     // of a joint: index into Program.params of the dense layer's weights
	noBias2  bool    // and no bias follows those
	mid      *buffer // of a joint: the convolution's output, empty without training
	partial  int64   // where its partial sums start, in float32
	arg      *buffer // places of maxima, bytes; nil where nothing is pooled
	stats    *buffer // a norm's mean and variance of the batch; nil without training
	inputDue bool    // the gradient of the input is needed

	rectified bool // the input came out of a ReLU, for stageAvgPool and stageCopy
}

// Compile makes the program of a model. It allocates nothing that grows with
// the model's sizes. The spec, the batch and the optimizer are validated.
func Compile(spec Spec, cfg Config) (*Program, error) { return compile(spec, cfg, true) }

// compile is Compile; share false gives every buffer bytes of its own.
func compile(spec Spec, cfg Config, share bool) (*Program, error) {
	shapes, err := spec.shapes()
	if err != nil {
		return nil, err
	}
	if cfg.Batch < 1 || cfg.Batch > MaxBatch {
		return nil, fmt.Errorf("%w: batch is %d, not in 1..%d", ErrInput, cfg.Batch, MaxBatch)
	}
	if cfg.Threads < 0 || cfg.Threads > MaxThreads {
		return nil, fmt.Errorf("%w: %d threads, not in 0..%d", ErrInput, cfg.Threads, MaxThreads)
	}
	cfg.Threads = max(cfg.Threads, 1)
	if cfg.MicroBatch < 0 || cfg.MicroBatch > cfg.Batch {
		return nil, fmt.Errorf("%w: micro-batch is %d, not in 0..%d, the batch", ErrInput, cfg.MicroBatch, cfg.Batch)
	}
	if cfg.MicroBatch == 0 {
		cfg.MicroBatch = cfg.Batch
	}
	if cfg.Train && cfg.MicroBatch < cfg.Batch && spec.WholeBatches() {
		return nil, fmt.Errorf("%w: a batch of %d in pieces of %d: %s normalises by the statistics of whole batches; take a smaller batch",
			ErrInput, cfg.Batch, cfg.MicroBatch, spec.Name)
	}
	if cfg.Train {
		if err := cfg.Optimizer.Validate(); err != nil {
			return nil, err
		}
		if !(cfg.LabelSmoothing >= 0 && cfg.LabelSmoothing < 1) {
			return nil, fmt.Errorf("%w: label smoothing %v, not in [0, 1)", ErrInput, cfg.LabelSmoothing)
		}
		if err := cfg.Augment.validate(spec.Input); err != nil {
			return nil, err
		}
	}
	spec.Layers = append([]Layer(nil), spec.Layers...)
	p := &Program{spec: spec, cfg: cfg, params: spec.Params(), count: spec.ParamCount(), learn: spec.LearnedCount()}
	p.consumes = cfg.Train && !cfg.KeepGradients && cfg.MicroBatch == cfg.Batch && cfg.Optimizer.piecewise()
	p.lower(shapes)
	p.join()
	p.remakes()
	p.layOut(share)
	return p, nil
}

// lower turns layers into stages and values, fuses what follows a convolution,
// batchnorm or dense layer to it, and counts the work.
func (p *Program) lower(shapes []Shape) {
	layers, batch, piece := p.spec.Layers, int64(p.cfg.Batch), int64(p.cfg.MicroBatch)
	in, rectified, learned := p.spec.Input, false, false
	var flattened Shape // what the values were before they were flattened
	weight, state := 0, len(Learned(p.params))
	value := func(s Shape) int {
		p.values = append(p.values, &buffer{bytes: 4 * piece * int64(s.Elements())})
		return len(p.values) - 1
	}
	value(in)
	later := newOutputs(layers)
	// fuse says whether layer i is of the kind and can be part of the stage before it.
	fuse := func(i int, kind string) bool { return i < len(layers) && layers[i].Kind == kind && !later.wanted(i-1) }
	for i := 0; i < len(layers); i++ {
		l := layers[i]
		out := shapes[i]
		later.leave(i-1, len(p.values)-1, rectified)
		if l.overwrites(p.cfg.Train) && later.keeps(len(p.values)-1) || l.Kind == KindAdd && p.mustCopy(i, later, rectified) {
			p.stages = append(p.stages, stage{
				kind: stageCopy, in: len(p.values) - 1, out: value(in), inLen: in.Elements(), outLen: in.Elements(),
				inputDue: learned, rectified: rectified,
			})
			// The copy's gradient is masked on its way back.
			rectified = rectified && l.Kind != KindAdd
		}
		s := stage{in: len(p.values) - 1, inLen: in.Elements(), inputDue: learned, weight: weight, state: state}
		// pooled fuses the ReLU and max-pool that follow layer i, whose output is
		// out. Both orders of the two give the same values.
		pooled := func() (pool int, relu bool) {
			pool, relu = 1, fuse(i+1, KindReLU)
			if relu {
				i++
			}
			if fuse(i+1, KindMaxPool) {
				i++
				pool, out = layers[i].Pool, shapes[i]
				s.arg = &buffer{bytes: piece * int64(out.Elements())}
				if fuse(i+1, KindReLU) {
					i++
					relu = true
				}
			}
			return pool, relu
		}
		work := int64(0) // multiply-adds of one pass for one record
		switch l.Kind {
		case KindFlatten:
			flattened, in = in, out
			continue
		case KindReLU:
			s.kind, s.out, s.outLen = stageReLU, s.in, s.inLen
			rectified = true
			p.stages = append(p.stages, s)
			continue
		case KindMaxPool:
			s.kind = stagePool
			s.pool = kernel.Pool{H: in.H, W: in.W, C: in.C, Size: l.Pool}
			s.arg = &buffer{bytes: piece * int64(out.Elements())}
			// The maximum of rectified values is rectified.
		case KindConv2D:
			s.kind = stageConv
			s.conv = kernel.Conv{H: in.H, W: in.W, C: in.C, K: l.Kernel, F: l.Filters, Stride: l.Stride, Rectified: rectified}
			_, _, s.conv.Pad = l.window(in)
			work = int64(out.Elements()) * int64(l.Kernel*l.Kernel*in.C)
			s.conv.Pool, s.conv.ReLU = pooled()
			rectified = s.conv.ReLU
		case KindBatchNorm:
			s.kind = stageNorm
			s.norm = kernel.Norm{H: in.H, W: in.W, C: in.C, Epsilon: normEpsilon, Rectified: rectified}
			s.norm.Pool, s.norm.ReLU = pooled()
			rectified = s.norm.ReLU
			weight, state, learned = weight+2, state+2, true
			if p.cfg.Train {
				s.stats = &buffer{bytes: 2 * align(4*int64(in.C))}
			} else if s.norm.Pool == 1 && !later.keeps(s.in) {
				s.out, s.outLen = s.in, s.inLen
				p.stages = append(p.stages, s)
				continue
			}
		case KindAvgPool:
			s.kind = stageAvgPool
			s.pool = kernel.Pool{H: in.H, W: in.W, C: in.C, Size: l.Pool}
			s.rectified, rectified = rectified, false
		case KindGlobalAvg:
			s.kind = stageGlobalAvg
			s.global = kernel.GlobalPool{H: in.H, W: in.W, C: in.C, Rectified: rectified}
			flattened, rectified = Shape{}, false
		case KindAdd:
			s.kind, s.out, s.outLen = stageAdd, s.in, s.inLen
			from := later.of[i-l.Back]
			earlier := p.spec.Input
			if i >= l.Back {
				earlier = shapes[i-l.Back]
			}
			relu := fuse(i+1, KindReLU)
			s.earlier = from.value
			s.residual = kernel.Residual{
				H: in.H, W: in.W, C: in.C, FromH: earlier.H, FromW: earlier.W, FromC: earlier.C,
				Stride: max(l.Stride, 1), ReLU: relu, Rectified: from.rectified,
			}
			if relu {
				i++
			}
			rectified = relu
			p.stages = append(p.stages, s)
			continue
		case KindDropout:
			if p.cfg.Train && l.Rate > 0 {
				s.kind, s.drop = stageDropout, newDropout(i, l.Rate)
				s.out, s.outLen = s.in, s.inLen
				p.stages = append(p.stages, s)
			}
			continue
		case KindDense:
			s.kind = stageDense
			s.dense = kernel.Dense{In: in.C, Out: l.Units, ReLU: fuse(i+1, KindReLU), Rectified: rectified}
			s.dense.Rows, s.dense.Cols = flattened.H, flattened.W
			flattened = Shape{}
			work = int64(in.C) * int64(l.Units)
			if s.dense.ReLU {
				i++
			}
			rectified = s.dense.ReLU
		}
		s.out, s.outLen, s.noBias = value(out), out.Elements(), l.NoBias
		if s.kind == stageDense && p.unites(s, later) {
			p.unite(s)
		} else {
			p.stages = append(p.stages, s)
		}
		in = out
		if work == 0 {
			continue
		}
		weight += 2
		if l.NoBias {
			weight--
			p.zeros = max(p.zeros, int64(out.C))
		}
		learned = true
		p.flops.Forward += 2 * batch * work
		if p.cfg.Train {
			p.flops.Backward += 2 * batch * work
			if s.inputDue {
				p.flops.Backward += 2 * batch * work
			}
		}
	}
}

// layOut finds the life of every buffer, places all of them and sums up.
//
// Time 0 copies the input in, 1..n are the stages forward, n+1 is the loss, and
// n+2.. are the stages backward, the last first. The gradient of a value lives
// in the value's buffer: the stage that consumes the value is the last to read
// it, and then overwrites it with its gradient for the stage before.
func (p *Program) layOut(share bool) {
	n := len(p.stages)
	buffers := append([]*buffer(nil), p.values...)
	for i := range p.stages {
		s := &p.stages[i]
		forward, backward := i+1, 2*n+1-i
		in, out := p.values[s.in], p.values[s.out]
		in.use(forward)
		if s.out != s.in {
			out.first = forward
		}
		out.use(forward)
		if s.kind == stageAdd {
			p.values[s.earlier].use(forward)
		}
		scratch := int64(0)
		switch s.kind {
		case stageConv:
			scratch = s.conv.Scratch(p.cfg.Threads, p.cfg.Train, s.inputDue)
			if p.cfg.Train {
				s.partial = p.partials
				p.partials += align(4*s.conv.Partials()) / 4
			}
		case stageDense:
			scratch = s.dense.Scratch(p.cfg.MicroBatch, p.cfg.Threads, p.consumes)
		case stageJoint:
			scratch = s.geometry().Scratch(p.cfg.MicroBatch, p.cfg.Threads, p.cfg.Train, p.consumes)
			s.mid.first = forward
			s.mid.use(forward)
			if p.cfg.Train {
				s.mid.use(backward)
				s.partial = p.partials
				p.partials += align(4*s.conv.Partials()) / 4
			}
		case stageNorm:
			scratch = s.norm.Scratch(p.cfg.Threads, p.cfg.Train)
		default:
		}
		if s.arg != nil {
			s.arg.first, s.arg.last = forward, forward
			buffers = append(buffers, s.arg)
		}
		if p.cfg.Train {
			if again := p.remadeOutput(i); again != nil {
				out = again
			}
			out.use(backward)
			if s.again != nil {
				in = s.again
				in.first = backward
				buffers = append(buffers, in)
			}
			if s.learns() || s.inputDue {
				in.use(backward)
			}
			for _, add := range s.adds {
				p.values[p.stages[add].out].use(backward)
			}
			if s.arg != nil {
				s.arg.use(backward)
			}
			if s.stats != nil {
				// To the end of the step, which blends them into the moving ones.
				s.stats.first, s.stats.last = forward, 2*n+2
				buffers = append(buffers, s.stats)
			}
		}
		p.scratch, p.gradients = max(p.scratch, scratch), max(p.gradients, p.left(s))
	}
	if !p.consumes {
		p.gradients = int64(p.learn)
	}
	p.values[len(p.values)-1].use(n + 1)

	p.scratch, p.zeros = align(4*p.scratch)/4, align(4*p.zeros)/4
	unbiased := 4 * p.zeros
	if p.cfg.Train {
		unbiased *= 2 // the gradient of what is not there goes somewhere
	}
	p.sizes = Sizes{
		Weights:     align(4 * int64(p.count)),
		Activations: place(buffers, share),
		Workspace:   4*(p.scratch+p.partials) + unbiased + align(2*int64(p.cfg.Batch)),
	}
	if p.cfg.Train {
		p.sizes.Moments = int64(p.cfg.Optimizer.Moments()) * align(4*int64(p.learn))
		p.sizes.Gradients = align(4 * p.gradients)
	}
	p.sizes.Total = p.sizes.Weights + p.sizes.Moments + p.sizes.Gradients + p.sizes.Activations + p.sizes.Workspace
}

// learns says whether the stage has parameters.
func (s *stage) learns() bool {
	return s.kind == stageConv || s.kind == stageDense || s.kind == stageJoint || s.kind == stageNorm
}

// Spec returns the model; the caller must not change its layers.
func (p *Program) Spec() Spec { return p.spec }

// Config returns what the program was compiled for.
func (p *Program) Config() Config { return p.cfg }

// Sizes returns the exact bytes of the arena.
func (p *Program) Sizes() Sizes { return p.sizes }

// FLOPs returns the work of one full batch.
func (p *Program) FLOPs() FLOPs { return p.flops }
