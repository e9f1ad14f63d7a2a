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

// Gradients that are used as they are made leave the bits of those that are kept, for
// every optimizer, set and number of threads, in less memory, however the pixels come.
func TestUsedGradientsDoNotShow(t *testing.T) {
	odd := []Spec{
		named(t, "cnn", Shape{5, 31, 1}, 7), named(t, "cnn", Shape{20, 13, 3}, 10),
		named(t, "mlp", Shape{9, 5, 2}, 3),
		withDense(Shape{11, 7, 2}, 5, Layer{Kind: KindConv2D, Filters: 12, Kernel: 3, Stride: 2, Padding: PaddingSame, NoBias: true},
			Layer{Kind: KindFlatten}, Layer{Kind: KindDense, Units: 9, NoBias: true}),
		withDense(Shape{12, 12, 1}, 5, Layer{Kind: KindConv2D, Filters: 8, Kernel: 5, Padding: PaddingSame},
			Layer{Kind: KindMaxPool, Pool: 3}, Layer{Kind: KindFlatten}),
	}
	for _, spec := range points.Some(append(odd, gradientModels(t)...)) {
		for i, o := range []Optimizer{Adam(1e-3), AdamW(1e-3), SGD(1e-2), {Kind: KindSGD, LearningRate: 1e-2}} {
			if i > 0 && spec.Name != "cnn" && spec.Name != "mlp" {
				continue
			}
			const batch = 7
			run := func(set kernel.Set, cfg Config, values bool) ([]uint32, Sizes) {
				cfg.Batch, cfg.Train, cfg.Optimizer = batch, true, o
				in := bindSet(t, spec, cfg, set)
				in.Init(1)
				x, y := records(spec, batch, 3)
				floats := make([]float32, len(x))
				set.Convert(floats, x, scale)
				for step, n := range []int{batch, batch, 2, batch} {
					s := StepInput{Pixels: x[:n*spec.Input.Elements()], Labels: y[:n], Scale: scale, Step: step + 1, Seed: 7}
					if values {
						s.Pixels, s.Values = nil, floats[:n*spec.Input.Elements()]
					}
					if _, err := in.Step(s); err != nil {
						t.Fatal(err)
					}
				}
				sum, predicted, err := in.Evaluate(x, y, scale)
				if err != nil {
					t.Fatal(err)
				}
				got := append(state(in), uint32(math.Float64bits(sum)>>20))
				for _, class := range predicted {
					got = append(got, uint32(class))
				}
				return got, in.Program().Sizes()
			}
			for _, set := range sets(t) {
				want, kept := run(set, Config{KeepGradients: true}, false)
				for _, threads := range points.Some([]int{2, 1, 3, 8}) {
					for _, cfg := range points.Some([]Config{{}, {KeepGradients: true}}) {
						cfg.Threads = threads
						got, sizes := run(set, cfg, threads == 2)
						if !slices.Equal(got, want) {
							t.Errorf("%s, %s, %s: %d threads, kept %v: other bits", spec.Name, o.Kind, set.Name, threads, cfg.KeepGradients)
						}
						if !cfg.KeepGradients && sizes.Gradients > kept.Gradients {
							t.Errorf("%s: %d bytes of gradients that are used, %d of all", spec.Name, sizes.Gradients, kept.Gradients)
						}
					}
				}
				if points.Stride == 1 && set.Name == kernel.FMA().Name {
					if got, _ := run(kernel.FMAReference(), Config{}, false); !slices.Equal(got, want) {
						t.Errorf("%s, %s: the reference differs", spec.Name, o.Kind)
					}
				}
			}
		}
	}
}

// A gradient that is not finite stops the step, whoever would have used it.
func TestNonFiniteGradients(t *testing.T) {
	for _, model := range points.Some([]string{"cnn", "mlp"}) {
		for _, set := range sets(t) {
			for _, keep := range []bool{true, false} {
				spec := named(t, model, Shape{8, 8, 1}, 10)
				in := bindSet(t, spec, Config{Batch: 4, Train: true, Optimizer: SGD(1e-2), KeepGradients: keep, Threads: 2}, set)
				in.Init(1)
				x, y := records(spec, 4, 1)
				// Logits stay small, but the gradient of the layer before overflows.
				for _, p := range spec.Params() {
					w := p.of(in.Weights())
					for i := range w {
						switch p.Name {
						case spec.Params()[0].Name:
							w[i] *= 1e30
						case spec.Params()[2].Name:
							w[i] *= 1e-30
						case spec.Params()[len(spec.Params())-2].Name:
							w[i] *= 1e20
						}
					}
				}
				before := state(in)
				_, err := takeStep(in, x, y, 1)
				if !errors.Is(err, ErrNonFinite) {
					t.Errorf("%s, %s, kept %v: %v, want ErrNonFinite", model, set.Name, keep, err)
				}
				if keep && !slices.Equal(state(in), before) {
					t.Errorf("%s, %s: a failed step changed something", model, set.Name)
				}
				if _, err := in.Gradient(StepInput{Pixels: x, Labels: y, Scale: scale, Step: 1}); keep != !errors.Is(err, ErrInput) {
					t.Errorf("%s, kept %v: gradient: %v", model, keep, err)
				}
			}
		}
	}
}
