// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"disdel/internal/nn/kernel"
)

// withDense is a model whose one dense layer follows the layers.
func withDense(in Shape, classes int, layers ...Layer) Spec {
	return Spec{Name: "test", Input: in, Classes: classes, Layers: append(layers, Layer{Kind: KindDense, Units: classes})}
}

func trainable(t *testing.T, spec Spec, batch int, o Optimizer) *Instance {
	t.Helper()
	in := bind(t, spec, Config{Batch: batch, Train: true, Optimizer: o})
	in.Init(1)
	return in
}

func TestSamePaddingIsKerass(t *testing.T) {
	// Sides and paddings as tf.keras.layers.Conv2D computes them.
	for _, c := range []struct{ n, kernel, stride, out, before, after int }{
		{28, 3, 1, 28, 1, 1},
		{28, 2, 1, 28, 0, 1},
		{28, 4, 1, 28, 1, 2},
		{28, 3, 2, 14, 0, 1},
		{27, 3, 2, 14, 1, 1},
		{7, 5, 3, 3, 2, 2},
		{8, 5, 3, 3, 1, 2},
		{5, 1, 2, 3, 0, 0},
		{5, 2, 4, 2, 0, 1},
		{1, 5, 1, 1, 2, 2},
	} {
		l := Layer{Kind: KindConv2D, Filters: 1, Kernel: c.kernel, Stride: c.stride, Padding: PaddingSame}
		h, w, pad := l.window(Shape{c.n, 28, 1})
		if h != c.out || pad.Top != c.before || pad.Bottom != c.after {
			t.Errorf("%+v: %d with %+v", c, h, pad)
		}
		if _, w2, pad2 := l.window(Shape{28, c.n, 1}); w2 != c.out || pad2.Left != c.before || pad2.Right != c.after {
			t.Errorf("%+v: width %d with %+v, height %d", c, w2, pad2, w)
		}
	}
}

func TestBatchNormState(t *testing.T) {
	spec := withDense(Shape{3, 3, 2}, 3, Layer{Kind: KindConv2D, Filters: 5, Kernel: 2}, Layer{Kind: KindBatchNorm}, Layer{Kind: KindFlatten})
	params := spec.Params()
	var names []string
	for _, p := range params {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " "); got != "conv2d_1.weight conv2d_1.bias batchnorm_1.gamma batchnorm_1.beta "+
		"dense_1.weight dense_1.bias batchnorm_1.moving_mean batchnorm_1.moving_variance" {
		t.Errorf("tensors: %s", got)
	}
	if n := spec.ParamCount() - spec.LearnedCount(); n != 10 {
		t.Errorf("%d values of state", n)
	}

	const batch = 6
	in := trainable(t, spec, batch, Adam(1e-3))
	mean, variance := params[6].of(in.Weights()), params[7].of(in.Weights())
	if mean[0] != 0 || variance[0] != 1 || params[2].of(in.Weights())[4] != 1 || params[3].of(in.Weights())[0] != 0 {
		t.Errorf("starts from %v %v", mean, variance)
	}
	// What the convolution makes of each batch, before the step changes it.
	var means, variances [5]float64
	for s := 1; s <= 3; s++ {
		x, y := records(spec, batch, uint64(s))
		var out [][]float64
		for r := range batch {
			pixels := make([]float64, 18)
			for i := range pixels {
				pixels[i] = float64(x[18*r+i]) * scale
			}
			w, b := wide(params[0].of(in.Weights())), wide(params[1].of(in.Weights()))
			out = append(out, twinLayer(spec.Layers[0], spec.Input, Shape{2, 2, 5}, pixels, w, b))
		}
		decay := 0.99 * (1 - math.Pow(0.99, float64(s-1))) / (1 - math.Pow(0.99, float64(s)))
		for c := range 5 {
			var m, v float64
			for _, u := range out {
				for i := c; i < len(u); i += 5 {
					m, v = m+u[i]/(4*batch), v+u[i]*u[i]/(4*batch)
				}
			}
			means[c] = means[c]*decay + m*(1-decay)
			variances[c] = variances[c]*decay + (v-m*m)*(1-decay)
		}
		if _, err := takeStep(in, x, y, s); err != nil {
			t.Fatal(err)
		}
		for c := range 5 {
			if math.Abs(float64(mean[c])-means[c]) > 1e-5 || math.Abs(float64(variance[c])-variances[c]) > 1e-5 {
				t.Errorf("step %d channel %d: %v %v, want %v %v", s, c, mean[c], variance[c], means[c], variances[c])
			}
		}
	}

	// Evaluation uses the moving statistics, the same for any batch, and keeps
	// them.
	before := state(in)
	x, y := records(spec, batch, 9)
	logits, err := in.Predict(x, batch, scale)
	if err != nil {
		t.Fatal(err)
	}
	all := bits(logits)
	if _, _, err := in.Evaluate(x, y, scale); err != nil {
		t.Fatal(err)
	}
	one, err := in.Predict(x[:spec.Input.Elements()], 1, scale)
	if err != nil || !slices.Equal(bits(one), all[:3]) {
		t.Errorf("a record's logits depend on its batch: %v", err)
	}
	if !slices.Equal(state(in), before) {
		t.Error("evaluation changes the model")
	}

	// An inference program, in place, gives the same bits.
	infer := bind(t, spec, Config{Batch: batch})
	copy(infer.Weights(), in.Weights())
	if got, err := infer.Predict(x, batch, scale); err != nil || !slices.Equal(bits(got), all) {
		t.Errorf("inference differs from the training program: %v", err)
	}
}

// A variance too large for float32 leaves loss and gradients finite; the step
// must fail all the same, and change nothing.
func TestHugeStatisticsStopBeforeTheUpdate(t *testing.T) {
	spec := withDense(Shape{1, 1, 4}, 3, Layer{Kind: KindDense, Units: 3}, Layer{Kind: KindBatchNorm})
	in := trainable(t, spec, 4, SGD(1e-2))
	for i := range in.Weights()[:12] {
		in.Weights()[i] *= 1e24
	}
	before := state(in)
	x, y := records(spec, 4, 1)
	if _, err := takeStep(in, x, y, 1); !errors.Is(err, ErrNonFinite) || !strings.Contains(err.Error(), "statistics") {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(state(in), before) {
		t.Error("the failed step changed the model")
	}
}

func TestDropoutMask(t *testing.T) {
	const n = 1 << 16
	ones := func() []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = 1
		}
		return v
	}
	base := StepInput{Seed: 1, Replica: 2, Step: 3}
	for _, rate := range []float64{0.1, 0.5, 0.9} {
		d := newDropout(4, rate)
		masks := [][]float32{ones(), ones(), ones(), ones(), ones()}
		d.apply(masks[0], d.mask(base), 0)
		kept := 0
		for _, v := range masks[0] {
			if v != 0 {
				kept++
				if v != float32(1/(1-rate)) {
					t.Fatalf("rate %v: kept value is %v", rate, v)
				}
			}
		}
		if off := math.Abs(float64(kept)-n*(1-rate)) / math.Sqrt(n*rate*(1-rate)); off > 4 {
			t.Errorf("rate %v: kept %d of %d, off by %.1f deviations", rate, kept, n, off)
		}
		// Any cut of the work gives the same mask.
		again := ones()
		d.apply(again[:777], d.mask(base), 0)
		d.apply(again[777:], d.mask(base), 777)
		if !slices.Equal(again, masks[0]) {
			t.Errorf("rate %v: parts differ from the whole", rate)
		}
		// Every part of the key changes it: two masks agree where chance has it.
		d.apply(masks[1], d.mask(StepInput{Seed: 2, Replica: 2, Step: 3}), 0)
		d.apply(masks[2], d.mask(StepInput{Seed: 1, Replica: 3, Step: 3}), 0)
		d.apply(masks[3], d.mask(StepInput{Seed: 1, Replica: 2, Step: 4}), 0)
		other := newDropout(5, rate)
		other.apply(masks[4], other.mask(base), 0)
		for i := range masks {
			for j := range i {
				agree, share := 0, rate*rate+(1-rate)*(1-rate)
				for k := range n {
					if masks[i][k] == masks[j][k] {
						agree++
					}
				}
				if off := math.Abs(float64(agree)-n*share) / math.Sqrt(n*share*(1-share)); off > 4.5 {
					t.Errorf("rate %v: masks %d and %d agree in %d of %d places, off by %.1f deviations", rate, i, j, agree, n, off)
				}
			}
		}
	}
	// The mask is part of what a job promises to repeat.
	d := newDropout(1, 0.5)
	var kept uint32
	for i := range 32 {
		if d.mask(base).at(uint64(i))>>40 >= d.below {
			kept |= 1 << i
		}
	}
	if kept != pinnedMask {
		t.Errorf("mask %#x, want %#x", kept, pinnedMask)
	}
}

const pinnedMask = 0xa826443d

func TestDropoutOutsideTraining(t *testing.T) {
	in := Shape{1, 1, 8}
	plain := withDense(in, 3, Layer{Kind: KindDense, Units: 6})
	drops := withDense(in, 3, Layer{Kind: KindDropout, Rate: 0.5}, Layer{Kind: KindDense, Units: 6}, Layer{Kind: KindDropout, Rate: 0.9})
	x, y := records(plain, 5, 1)
	var want []uint32
	for _, spec := range []Spec{plain, drops} {
		for _, training := range []bool{true, false} {
			in := bind(t, spec, Config{Batch: 5, Train: training, Optimizer: Adam(1e-3)})
			in.Init(1)
			logits, err := in.Predict(x, 5, scale)
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = bits(logits)
			} else if !slices.Equal(bits(logits), want) {
				t.Errorf("train=%v: dropout shows outside training", training)
			}
		}
	}
	// In training the replica, the seed and the step decide.
	run := func(s StepInput) float64 {
		in := trainable(t, drops, 5, Adam(1e-3))
		s.Pixels, s.Labels, s.Scale = x, y, scale
		loss, err := in.Step(s)
		if err != nil {
			t.Fatal(err)
		}
		return loss
	}
	base := run(StepInput{Step: 1})
	if run(StepInput{Step: 1}) != base {
		t.Error("one step, two losses")
	}
	for _, s := range []StepInput{{Step: 2}, {Step: 1, Seed: 1}, {Step: 1, Replica: 1}} {
		if run(s) == base {
			t.Errorf("%+v has the mask of step 1", s)
		}
	}
}

func TestOptimizers(t *testing.T) {
	for name, want := range map[string]struct {
		o       Optimizer
		moments int
	}{
		"adam":  {Optimizer{Kind: "adam", LearningRate: 1e-3, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}, 2},
		"adamw": {Optimizer{Kind: "adamw", LearningRate: 1e-3, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7, WeightDecay: 0.004}, 2},
		"sgd":   {Optimizer{Kind: "sgd", LearningRate: 1e-2, Momentum: 0.9}, 1},
	} {
		o, err := ParseOptimizer(name, 0)
		if err != nil || o != want.o || o.Moments() != want.moments || o.Validate() != nil {
			t.Errorf("%s: %+v with %d moments, %v", name, o, o.Moments(), err)
		}
		if o, err := ParseOptimizer(name, 0.5); err != nil || o.LearningRate != 0.5 {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
		for _, rate := range []float64{-1, math.NaN(), math.Inf(1)} {
			if _, err := ParseOptimizer(name, rate); !errors.Is(err, ErrOptimizer) {
				t.Errorf("%s with rate %v: %v", name, rate, err)
			}
		}
	}
	if _, err := ParseOptimizer("lion", 0); !errors.Is(err, ErrOptimizer) || !strings.Contains(err.Error(), "adam, adamw, sgd") {
		t.Errorf("unknown: %v", err)
	}
	nan := math.NaN()
	for want, o := range map[string]Optimizer{
		"momentum 1 is out":              {Kind: KindSGD, LearningRate: 1, Momentum: 1},
		"momentum NaN is out":            {Kind: KindSGD, LearningRate: 1, Momentum: nan},
		"beta1 is 0.9, but this kind":    {Kind: KindSGD, LearningRate: 1, Beta1: 0.9},
		"weight decay is 1, but":         {Kind: KindAdam, LearningRate: 1, Epsilon: 1, WeightDecay: 1},
		"weight decay 1 is out of range": {Kind: KindAdamW, LearningRate: 1, Epsilon: 1, WeightDecay: 1},
		"weight decay -1 is out":         {Kind: KindAdamW, LearningRate: 1, Epsilon: 1, WeightDecay: -1},
	} {
		if err := o.Validate(); !errors.Is(err, ErrOptimizer) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// What is not there takes no bytes, and the model's own state has no moments,
// takes no step and does not decay.
func TestMomentsAreExact(t *testing.T) {
	spec := withDense(Shape{1, 1, 9}, 3, Layer{Kind: KindDense, Units: 20}, Layer{Kind: KindBatchNorm})
	learned := spec.LearnedCount()
	for _, o := range []Optimizer{Adam(1e-3), AdamW(1e-3), SGD(1e-2), {Kind: KindSGD, LearningRate: 1e-2}} {
		in := bind(t, spec, Config{Batch: 4, Train: true, Optimizer: o, KeepGradients: true})
		in.Init(1)
		m, v := in.Moments()
		if n := o.Moments(); (len(m) == learned) != (n > 0) || (len(v) == learned) != (n > 1) || len(in.Gradients()) != learned {
			t.Errorf("%s: %d and %d moments, %d gradients of %d", o.Kind, len(m), len(v), len(in.Gradients()), learned)
		}
		if want := int64(o.Moments()) * align(4*int64(learned)); in.Program().Sizes().Moments != want {
			t.Errorf("%s: moments of %d bytes, want %d", o.Kind, in.Program().Sizes().Moments, want)
		}
		// The first step leaves the statistics of the batch in the state, whatever
		// the optimizer.
		x, y := records(spec, 4, 1)
		before := slices.Clone(in.Weights())
		if _, err := takeStep(in, x, y, 1); err != nil {
			t.Fatal(err)
		}
		b := &in.stages[1]
		if !slices.Equal(bits(in.Weights()[learned:]), slices.Concat(bits(b.mean), bits(b.variance))) {
			t.Errorf("%s: state is not the batch's statistics", o.Kind)
		}
		if slices.Equal(before[:learned], in.Weights()[:learned]) {
			t.Errorf("%s: nothing was learned", o.Kind)
		}
	}
}

// Records that are not there do not show: not in statistics, not in masks.
func TestPartialBatchOfDeepModel(t *testing.T) {
	spec := narrow(named(t, "cnn-deep", Shape{6, 5, 2}, 5))
	x, y := records(spec, 3, 4)
	var want []uint32
	for _, batch := range []int{3, 8} {
		in := trainable(t, spec, batch, AdamW(1e-3))
		if batch == 8 {
			fx, fy := records(spec, 8, 77)
			train(t, in, fx, fy, 1)
			in.Init(1)
		}
		train(t, in, x, y, 3)
		if want == nil {
			want = state(in)
		} else if !slices.Equal(state(in), want) {
			t.Error("a partial batch differs from a full one of the same records")
		}
	}
}

func TestRestore(t *testing.T) {
	// The convolution has no bias, for which the arena holds zeros.
	spec := withDense(Shape{4, 4, 1}, 3, Layer{Kind: KindConv2D, Filters: 5, Kernel: 2, NoBias: true}, Layer{Kind: KindFlatten})
	for _, set := range []kernel.Set{kernel.Generic(), kernel.FMA()} {
		program, err := Compile(spec, Config{Batch: 4, Train: true, Optimizer: Adam(1e-3), Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		memory := alignedBytes(int(program.Sizes().Total))
		in, err := program.Bind(memory, set)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		step := func() []float32 {
			in.Init(1)
			x, y := records(spec, 4, 1)
			if _, err := in.Step(StepInput{Pixels: x, Labels: y, Scale: scale, Step: 1}); err != nil {
				t.Fatal(err)
			}
			return slices.Clone(in.Weights())
		}
		want := step()
		for i := range memory {
			memory[i] = 0x3f
		}
		in.Restore()
		if got := step(); !slices.Equal(got, want) {
			t.Errorf("%s: weights %v, want %v", set.Name, got, want)
		}
	}
}
