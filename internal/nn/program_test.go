// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"disdel/internal/nn/kernel"
)

// The figures of the engine's budget: a change here is a change of every plan.
func TestSizesArePinned(t *testing.T) {
	for _, c := range []struct {
		model string
		in    Shape
		train bool
		want  Sizes
		flops FLOPs
	}{
		{
			"cnn",
			Shape{28, 28, 1},
			true,
			Sizes{1388608, 2777216, 1536, 1749504, 84608, 6001472},
			FLOPs{69304320, 113688576},
		},
		{
			"cnn",
			Shape{28, 28, 1},
			false,
			Sizes{1388608, 0, 0, 18944, 123008, 1530560},
			FLOPs{69304320, 0},
		},
		{
			"cnn",
			Shape{32, 32, 3},
			true,
			Sizes{1849664, 3699328, 3840, 2322944, 163712, 8039488},
			FLOPs{158597120, 217661440},
		},
		{
			"cnn-deep",
			Shape{32, 32, 3},
			true,
			Sizes{2367424, 4731776, 147456, 42504192, 822784, 50573632},
			FLOPs{3200417792, 6287589376},
		},
		{
			"cnn-deep",
			Shape{32, 32, 3},
			false,
			Sizes{2367424, 0, 0, 16777216, 148352, 19292992},
			FLOPs{3200417792, 0},
		},
		{
			"cnn-deep",
			Shape{28, 28, 1},
			true,
			Sizes{1873600, 3744128, 147456, 32149504, 750080, 38664768},
			FLOPs{2392555520, 4756209664},
		},
		{
			"resnet20",
			Shape{32, 32, 3},
			true,
			Sizes{1084416, 2157824, 147456, 97279872, 2703488, 103373056},
			FLOPs{5190533120, 10324443136},
		},
		{
			"resnet20",
			Shape{32, 32, 3},
			false,
			Sizes{1084416, 0, 0, 12582912, 74368, 13741696},
			FLOPs{5190533120, 0},
		},
		{
			"lenet5",
			Shape{28, 28, 1},
			true,
			Sizes{246848, 493696, 9664, 759808, 144960, 1654976},
			FLOPs{53314560, 91576320},
		},
	} {
		p, err := Compile(named(t, c.model, c.in, 10), Config{Batch: 64, Train: c.train, Optimizer: Adam(1e-3)})
		if err != nil {
			t.Fatal(err)
		}
		if p.Sizes() != c.want || p.FLOPs() != c.flops {
			t.Errorf("%s %v train=%v: %+v, %+v", c.model, c.in, c.train, p.Sizes(), p.FLOPs())
		}
	}
}

// specs draws small valid models.
func specs() *rapid.Generator[Spec] {
	return rapid.Custom(func(t *rapid.T) Spec {
		draw := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, name) }
		s := Spec{
			Name:    "random",
			Input:   Shape{draw("h", 1, 9), draw("w", 1, 9), draw("c", 1, 3)},
			Classes: draw("classes", 2, 6),
		}
		at := s.Input
		for range draw("layers", 0, 9) {
			l := Layer{Kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
			switch l.Kind {
			case KindConv2D:
				l.Filters, l.Kernel, l.Stride = draw("filters", 1, 6), draw("kernel", 1, 4), draw("stride", 0, 3)
				l.NoBias = rapid.Bool().Draw(t, "no bias")
				l.Padding = rapid.SampledFrom([]string{"", PaddingValid, PaddingSame}).Draw(t, "padding")
			case KindDropout:
				l.Rate = float64(draw("rate", 0, 9)) / 10
			case KindMaxPool, KindAvgPool:
				l.Pool = draw("pool", 1, 3)
			case KindDense:
				l.Units = draw("units", 1, 9)
				l.NoBias = rapid.Bool().Draw(t, "no bias")
			case KindAdd:
				l.Back, l.Stride = draw("back", 2, 6), draw("stride", 0, 2)
			}
			out, _, err := l.apply(at)
			if err == nil && l.Kind == KindAdd {
				shapes, _ := withDense(s.Input, 2, append(slices.Clone(s.Layers), Layer{Kind: KindFlatten})...).shapes()
				err = l.checkAdd(len(s.Layers), at, func(layer int) Shape {
					if layer < 0 {
						return s.Input
					}
					return shapes[layer]
				})
			}
			if err == nil {
				s.Layers, at = append(s.Layers, l), out
			}
		}
		s.Layers = append(s.Layers, Layer{Kind: KindFlatten}, Layer{Kind: KindDense, Units: s.Classes})
		return s
	})
}

// Sharing bytes must not show: a program whose buffers overlap nowhere gives
// the same bits, and is never smaller.
func TestPropertySharingDoesNotShow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := specs().Draw(t, "spec")
		if err := spec.Validate(); err != nil {
			t.Fatal(err)
		}
		cfg := Config{Batch: rapid.IntRange(1, 5).Draw(t, "batch")}
		cfg.Optimizer = rapid.SampledFrom([]Optimizer{
			Adam(1e-2), AdamW(1e-2), SGD(1e-2), {Kind: KindSGD, LearningRate: 1e-2},
		}).Draw(t, "optimizer")
		cfg.Train, cfg.Remake = rapid.Bool().Draw(t, "train"), rapid.Bool().Draw(t, "remake")
		cfg.KeepGradients = rapid.Bool().Draw(t, "keep gradients")
		x, y := records(spec, cfg.Batch, rapid.Uint64().Draw(t, "data"))
		var want []uint32
		var total int64
		for _, share := range []bool{true, false} {
			p, err := compile(spec, cfg, share)
			if err != nil {
				t.Fatal(err)
			}
			checkSizes(t, p)
			if total > p.Sizes().Total {
				t.Fatalf("sharing costs %d bytes", total-p.Sizes().Total)
			}
			total = p.Sizes().Total
			arena := alignedBytes(int(total))
			for i := range arena {
				arena[i] = 0xff
			}
			in, err := p.Bind(arena, kernel.Generic())
			if err != nil {
				t.Fatal(err)
			}
			in.Init(1)
			for step := 1; cfg.Train && step <= 2; step++ {
				if _, err := takeStep(in, x, y, step); err != nil {
					t.Fatal(err)
				}
			}
			logits, err := in.Predict(x, cfg.Batch, scale)
			if err != nil {
				t.Fatal(err)
			}
			got := slices.Concat(state(in), bits(logits))
			if want == nil {
				want = got
			} else if !slices.Equal(got, want) {
				t.Fatal("sharing changes the result")
			}
		}
	})
}

func checkSizes(t *rapid.T, p *Program) {
	s := p.Sizes()
	terms := []int64{s.Weights, s.Moments, s.Gradients, s.Activations, s.Workspace}
	sum := int64(0)
	for _, term := range terms {
		if term < 0 || term%alignment != 0 {
			t.Fatalf("%+v: not aligned", s)
		}
		sum += term
	}
	if sum != s.Total {
		t.Fatalf("%+v: terms do not add up", s)
	}
	if count := int64(p.Spec().ParamCount()); s.Weights != align(4*count) {
		t.Fatalf("%+v: weights of %d parameters", s, count)
	}
	all, moments := int64(0), int64(p.Config().Optimizer.Moments())
	if p.Config().Train {
		all = align(4 * int64(p.Spec().LearnedCount()))
	}
	if s.Gradients > all || p.Config().KeepGradients && s.Gradients != all || s.Moments != moments*all {
		t.Fatalf("%+v: gradients of %d bytes if all are kept, %d moments", s, all, moments)
	}
	at := 0
	for _, q := range p.Spec().Params() {
		n := 1
		for _, d := range q.Shape {
			n *= d
		}
		if q.Offset != at || q.Len != n {
			t.Fatalf("%+v: not at %d", q, at)
		}
		at += n
	}
	if at != p.Spec().ParamCount() {
		t.Fatalf("tensors end at %d", at)
	}
}

// The result of every random model is that of the plainest forward pass.
func TestPropertyForwardMatchesTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := specs().Draw(t, "spec")
		p, err := Compile(spec, Config{Batch: 3})
		if err != nil {
			t.Fatal(err)
		}
		in, err := p.Bind(alignedBytes(int(p.Sizes().Total)), kernel.Generic())
		if err != nil {
			t.Fatal(err)
		}
		in.Init(rapid.Uint64().Draw(t, "seed"))
		x, _ := records(spec, 3, rapid.Uint64().Draw(t, "data"))
		logits, err := in.Predict(x, 3, scale)
		if err != nil {
			t.Fatal(err)
		}
		for r, logits64 := range twin(spec, wide(in.Weights()), x, nil) {
			for c, want := range logits64 {
				if d := float64(logits[r*spec.Classes+c]) - want; d > 1e-4 || d < -1e-4 {
					t.Fatalf("record %d class %d: %v, want %v", r, c, logits[r*spec.Classes+c], want)
				}
			}
		}
	})
}

func TestBindRefuses(t *testing.T) {
	p, err := Compile(named(t, "mlp", Shape{2, 2, 1}, 3), Config{Batch: 1})
	if err != nil {
		t.Fatal(err)
	}
	n := int(p.Sizes().Total)
	b := alignedBytes(n + 64)
	for name, c := range map[string]struct {
		arena []byte
		set   kernel.Set
	}{
		"short":     {b[:n-1], kernel.Generic()},
		"unaligned": {b[4:], kernel.Generic()},
		"no set":    {b, kernel.Set{}},
		"nil":       {nil, kernel.Generic()},
	} {
		if _, err := p.Bind(c.arena, c.set); !errors.Is(err, ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestArena(t *testing.T) {
	for _, n := range []int{0, -1, math.MaxInt} {
		if _, err := NewArena(n); !errors.Is(err, ErrInput) {
			t.Errorf("arena of %d bytes: %v", n, err)
		}
	}
	for _, n := range []int{1, 64, 4097, 1 << 20} {
		a, err := NewArena(n)
		if err != nil {
			t.Fatal(err)
		}
		b := a.Bytes()
		if len(b) != n || cap(b) != n || b[0] != 0 || b[n-1] != 0 {
			t.Errorf("%d bytes: %d of %d", n, len(b), cap(b))
		}
		b[n-1] = 1
		for range 2 {
			if err := a.Close(); err != nil || a.Bytes() != nil {
				t.Errorf("close: %v", err)
			}
		}
	}
}
