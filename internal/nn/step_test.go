// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"math"
	"slices"
	"testing"

	"disdel/internal/nn/kernel"
	"disdel/internal/points"
)

// bits returns the values' bits, so that NaN equals itself.
func bits(v []float32) []uint32 {
	u := make([]uint32, len(v))
	for i, a := range v {
		u[i] = math.Float32bits(a)
	}
	return u
}

// state returns the bits of weights and both moments.
func state(in *Instance) []uint32 {
	m, v := in.Moments()
	return slices.Concat(bits(in.Weights()), bits(m), bits(v))
}

// train takes steps on the same records.
func train(t testing.TB, in *Instance, x []byte, y []uint16, steps int) (loss float64) {
	t.Helper()
	for i := 1; i <= steps; i++ {
		var err error
		if loss, err = takeStep(in, x, y, i); err != nil {
			t.Fatal(err)
		}
	}
	return loss
}

func TestOverfitsOneBatch(t *testing.T) {
	for _, name := range Names() {
		shape, steps := Shape{8, 8, 1}, 150
		switch name {
		case "cnn-deep":
			shape, steps = Shape{4, 4, 1}, 30
		case "resnet20":
			// Its moving statistics take longer to follow its weights.
			shape, steps = Shape{4, 4, 1}, 70
		case "lenet5":
			shape = Shape{12, 12, 1}
		}
		spec := named(t, name, shape, 10)
		in := bindSet(t, spec, Config{Batch: 16, Train: true, Optimizer: Adam(3e-3)}, oneSet())
		in.Init(1)
		x, y := records(spec, 16, 1)
		train(t, in, x, y, steps)
		sum, predicted, err := in.Evaluate(x, y, scale)
		if err != nil || sum > 0.05*16 || !slices.Equal(predicted, y) {
			t.Errorf("%s: loss %v, predicted %v of %v, %v", name, sum/16, predicted, y, err)
		}
	}
}

func TestPartialBatchEqualsSmallerProgram(t *testing.T) {
	spec := named(t, "cnn", Shape{9, 8, 2}, 5)
	x, y := records(spec, 3, 4)
	var want []uint32
	for _, batch := range []int{3, 8} {
		in := bind(t, spec, Config{Batch: batch, Train: true, Optimizer: Adam(1e-3)})
		in.Init(2)
		if batch == 8 { // leave other values in the unused records
			fx, fy := records(spec, 8, 77)
			train(t, in, fx, fy, 1)
			in.Init(2)
		}
		train(t, in, x, y, 3)
		if want == nil {
			want = state(in)
		} else if !slices.Equal(state(in), want) {
			t.Error("a partial batch differs from a full one of the same records")
		}
	}
}

// A gradient is a sum in record order: two halves, one after the other, are the
// whole, bit for bit.
func TestGradientContinuesOverParts(t *testing.T) {
	for _, spec := range points.Some(append(gradientModels(t), named(t, "cnn", Shape{20, 20, 3}, 10))) {
		if slices.ContainsFunc(spec.Layers, func(l Layer) bool { return l.Kind == KindBatchNorm }) {
			continue
		}
		const batch = 17
		x, y := records(spec, batch, 4)
		for _, set := range sets(t) {
			var want []uint32
			for _, threads := range []int{1, 2} {
				in := bindSet(t, spec, Config{Batch: batch, Train: true, Optimizer: Adam(1e-3), KeepGradients: true, Threads: threads}, set)
				in.Init(2)
				for _, cuts := range [][]int{{0, batch}, {0, 2, 3, batch}, {0, 9, batch}} {
					for i := 1; i < len(cuts); i++ {
						lo, hi := cuts[i-1], cuts[i]
						p := &part{StepInput: StepInput{Step: 9, Seed: 1}, from: lo, last: hi == batch}
						in.forward(in.records(x, nil, scale, lo), hi-lo, p)
						in.backward(y[lo:hi], 1.0/batch, p)
					}
					if got := bits(in.gradients); want == nil {
						want = got
					} else if !slices.Equal(got, want) {
						t.Errorf("%s, %s, %d threads: parts at %v do not add up to the whole", spec.Name, set.Name, threads, cuts)
					}
				}
			}
		}
	}
}

func TestSameSeedSameBytes(t *testing.T) {
	spec := named(t, "cnn", Shape{8, 8, 1}, 10)
	x, y := records(spec, 8, 1)
	run := func(seed uint64) []uint32 {
		in := bind(t, spec, Config{Batch: 8, Train: true, Optimizer: Adam(1e-3)})
		in.Init(seed)
		train(t, in, x, y, 5)
		return state(in)
	}
	if !slices.Equal(run(1), run(1)) {
		t.Error("one seed, two results")
	}
	if slices.Equal(run(1), run(2)) {
		t.Error("two seeds, one result")
	}
}

// The first values of a seed are part of what a job promises to repeat.
func TestInitIsPinned(t *testing.T) {
	in := bind(t, named(t, "cnn", Shape{8, 8, 1}, 10), Config{Batch: 1})
	in.Init(42)
	p := in.Program().Spec().Params()
	for i, want := range [][]float32{
		{-0.08728292, -0.042617474, -0.10541863},
		{-0.09917629, -0.0212417, -0.077763766},
	} {
		if got := p[2*i].of(in.Weights())[:3]; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", p[2*i].Name, got, want)
		}
	}
	for _, p := range p {
		low, high, sum := float32(0), float32(0), 0.0
		for _, v := range p.of(in.Weights()) {
			low, high, sum = min(low, v), max(high, v), sum+float64(v)
		}
		if len(p.Shape) == 1 {
			if low != 0 || high != 0 {
				t.Errorf("%s is not zero", p.Name)
			}
			continue
		}
		d := len(p.Shape)
		limit := math.Sqrt(6 / float64(p.Len/p.Shape[d-1]+p.Len/p.Shape[d-2]))
		mean := sum / float64(p.Len) / limit * math.Sqrt(3*float64(p.Len)) // in standard deviations
		if float64(high) > limit || float64(-low) > limit || float64(high-low) < 1.9*limit || math.Abs(mean) > 4 {
			t.Errorf("%s: from %v to %v with limit %v, mean off by %.1f deviations", p.Name, low, high, limit, mean)
		}
	}
}

func TestArenaUsedExactly(t *testing.T) {
	for _, spec := range gradientModels(t) {
		for _, training := range []bool{true, false} {
			p, err := Compile(spec, Config{Batch: 5, Train: training, Optimizer: Adam(1e-3)})
			if err != nil {
				t.Fatal(err)
			}
			x, y := records(spec, 5, 6)
			total := int(p.Sizes().Total)
			run := func(fill byte) []uint32 {
				arena := alignedBytes(total + 256)
				for i := range arena {
					arena[i] = fill // 0xff: NaN everywhere
				}
				in, err := p.Bind(arena, kernel.Generic())
				if err != nil {
					t.Fatal(err)
				}
				in.Init(1)
				if training {
					train(t, in, x, y, 3)
				}
				logits, err := in.Predict(x[:4*spec.Input.Elements()], 4, scale)
				if err != nil {
					t.Fatal(err)
				}
				got := slices.Concat(state(in), bits(logits))
				for i, b := range arena[total:] {
					if b != fill {
						t.Fatalf("%s: byte %d past the end was written", spec.Name, i)
					}
				}
				return got
			}
			if !slices.Equal(run(0), run(0xff)) {
				t.Errorf("%s: what was in the arena before shows", spec.Name)
			}
		}
	}
}

func TestStepAllocatesNothing(t *testing.T) {
	for _, name := range Names() {
		spec := named(t, name, small(name, Shape{4, 4, 1}), 10)
		in := bind(t, spec, Config{Batch: 4, Train: true, Optimizer: Adam(1e-3)})
		in.Init(1)
		x, y := records(spec, 4, 1)
		step := 0
		n := testing.AllocsPerRun(points.Count(10), func() {
			step++
			if _, err := takeStep(in, x, y, step); err != nil {
				t.Fatal(err)
			}
			if _, _, err := in.Evaluate(x, y, scale); err != nil {
				t.Fatal(err)
			}
			if _, err := in.Predict(x, 4, scale); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestBadInputIsAnErrorAndChangesNothing(t *testing.T) {
	spec := named(t, "mlp", Shape{2, 2, 1}, 3)
	in := bind(t, spec, Config{Batch: 4, Train: true, Optimizer: Adam(1e-3)})
	in.Init(1)
	x, y := records(spec, 4, 1)
	before := state(in)
	for name, step := range map[string]func() error{
		"no records":     func() error { _, err := takeStep(in, nil, nil, 1); return err },
		"too many":       func() error { _, err := takeStep(in, make([]byte, 20), make([]uint16, 5), 1); return err },
		"short pixels":   func() error { _, err := takeStep(in, x[1:], y, 1); return err },
		"long pixels":    func() error { _, err := takeStep(in, x, y[1:], 1); return err },
		"label":          func() error { _, err := takeStep(in, x, []uint16{0, 1, 3, 0}, 1); return err },
		"step 0":         func() error { _, err := takeStep(in, x, y, 0); return err },
		"predict none":   func() error { _, err := in.Predict(nil, 0, scale); return err },
		"predict less":   func() error { _, err := in.Predict(x, 3, scale); return err },
		"negative":       func() error { _, err := in.Predict(x, -1, scale); return err },
		"evaluate label": func() error { _, _, err := in.Evaluate(x, []uint16{0, 1, 3, 0}, scale); return err },
	} {
		if err := step(); !errors.Is(err, ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !slices.Equal(state(in), before) {
		t.Error("weights or moments changed")
	}
	if _, err := takeStep(bind(t, spec, Config{Batch: 4}), x, y, 1); !errors.Is(err, ErrNotTraining) {
		t.Errorf("training without: %v", err)
	}
}

func TestNonFiniteStopsBeforeTheUpdate(t *testing.T) {
	spec := named(t, "cnn", Shape{8, 8, 1}, 4)
	x, y := records(spec, 4, 1)
	for i, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), 3e38} {
		for _, p := range spec.Params() {
			in := bind(t, spec, Config{Batch: 4, Train: true, Optimizer: Adam(1e-3)})
			in.Init(uint64(i))
			for j := range p.of(in.Weights()) {
				p.of(in.Weights())[j] = bad
			}
			before := state(in)
			_, err := takeStep(in, x, y, 1)
			// Equal huge biases of the classes leave the loss finite; then the
			// step is an ordinary one.
			if err == nil && bad == 3e38 {
				continue
			}
			if !errors.Is(err, ErrNonFinite) || !slices.Equal(state(in), before) {
				t.Errorf("%s = %v: %v, changed %v", p.Name, bad, err, !slices.Equal(state(in), before))
			}
			if _, predicted, err := in.Evaluate(x, y, scale); !errors.Is(err, ErrNonFinite) || len(predicted) != 4 {
				t.Errorf("%s = %v: evaluate: %v", p.Name, bad, err)
			}
		}
	}
}

// Moments of weights that see no gradient decay for ever; they must become
// zero, not denormal.
func TestMomentsFlushToZero(t *testing.T) {
	spec := named(t, "mlp", Shape{2, 2, 1}, 3)
	in := bindSet(t, spec, Config{Batch: 4, Train: true, Optimizer: Adam(1e-3)}, oneSet())
	in.Init(1)
	x, y := records(spec, 4, 1)
	train(t, in, x, y, 1)
	clear(x) // no pixel, no gradient of the first layer's weights
	m, v := in.Moments()
	first := spec.Params()[0]
	for i := range first.of(v) {
		first.of(v)[i] *= 1e-30
	}
	for i := 2; i <= 1200; i++ {
		if _, err := takeStep(in, x, y, i); err != nil {
			t.Fatal(err)
		}
		if i%points.Stride != 0 { // a denormal stays one for more steps than that
			continue
		}
		for _, u := range slices.Concat(m, v) {
			if u != 0 && math.Abs(float64(u)) < 0x1p-126 {
				t.Fatalf("step %d: moment %g", i, u)
			}
		}
	}
	if slices.ContainsFunc(first.of(m), func(u float32) bool { return u != 0 }) {
		t.Error("moments did not decay to zero")
	}
}

// The bits of training with generic-1 are a promise: no platform and no compiler
// may change them. If the arithmetic changes on purpose, so must the set's name.
func TestBitsArePinned(t *testing.T) {
	for name, c := range map[string]struct {
		spec  Spec
		o     Optimizer
		steps int
		want  uint64
	}{
		"cnn":      {named(t, "cnn", Shape{8, 9, 2}, 10), Adam(1e-3), 30, 0x7a0a30946922f78c},
		"mlp":      {named(t, "mlp", Shape{8, 9, 2}, 10), Adam(1e-3), 30, 0xaad3e8c13b385f53},
		"deep":     {gradientModel(t, "deep"), Adam(1e-3), 30, 0xa4f2ec754ce393db},
		"cnn-deep": {named(t, "cnn-deep", Shape{5, 4, 2}, 10), Adam(1e-3), 5, 0x6cdeb229478bba16},
		"strides":  {gradientModel(t, "stride and same, pooled, deep"), AdamW(1e-3), 30, 0xb5677d204edaa236},
		"avgpool":  {gradientModel(t, "avgpool of rectified"), SGD(1e-2), 30, 0xfdf47b4947e44bbb},
	} {
		spec, want := c.spec, c.want
		in := bind(t, spec, Config{Batch: 8, Train: true, Optimizer: c.o})
		in.Init(1)
		x, y := records(spec, 8, 1)
		loss := train(t, in, x, y, c.steps)
		h := uint64(14695981039346656037)
		for _, v := range append(state(in), uint32(math.Float64bits(loss)), uint32(math.Float64bits(loss)>>32)) {
			h = (h ^ uint64(v)) * 1099511628211
		}
		if h != want {
			t.Errorf("%q: %#x, want %#x", name, h, want)
		}
	}
}

func TestGradient(t *testing.T) {
	// The gradients of two parts of a batch, averaged, are that of the batch, also
	// where dropout goes by the place of a record; and only Step changes anything.
	spec := withDense(Shape{5, 5, 1}, 3, Layer{Kind: KindFlatten}, Layer{Kind: KindDropout, Rate: 0.4})
	in := bind(t, spec, Config{Batch: 6, Train: true, Optimizer: Adam(1e-3), KeepGradients: true})
	in.Init(1)
	x, y := records(spec, 6, 1)
	size := spec.Input.Elements()
	part := func(first, end int) []float32 {
		if _, err := in.Gradient(StepInput{
			Pixels: x[first*size : end*size], Labels: y[first:end], Scale: scale, Step: 3, Seed: 9, First: first,
		}); err != nil {
			t.Fatal(err)
		}
		return slices.Clone(in.Gradients())
	}
	before := state(in)
	whole, a, b := part(0, 6), part(0, 4), part(4, 6)
	for i := range whole {
		if mean := (4*a[i] + 2*b[i]) / 6; math.Abs(float64(mean-whole[i])) > 1e-6 {
			t.Errorf("gradient %d is %v, of the parts %v", i, whole[i], mean)
		}
	}
	if !slices.Equal(state(in), before) {
		t.Error("Gradient changes weights or moments")
	}
	part(0, 6)
	weights, gradient := slices.Clone(in.Weights()), slices.Clone(in.Gradients())
	m, v := make([]float32, len(weights)), make([]float32, len(weights))
	Adam(1e-3).Apply(kernel.Generic(), nil, 3, weights, gradient, m, v)
	if _, err := in.Step(StepInput{Pixels: x, Labels: y, Scale: scale, Step: 3, Seed: 9}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(state(in), slices.Concat(bits(weights), bits(m), bits(v))) {
		t.Error("Step is not Gradient and Apply")
	}
	if _, err := in.Gradient(StepInput{Pixels: x, Labels: y, Scale: scale, Step: 1, First: -1}); !errors.Is(err, ErrInput) {
		t.Errorf("a batch from record -1: %v", err)
	}
}
