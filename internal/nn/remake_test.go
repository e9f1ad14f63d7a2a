// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"disdel/internal/nn/kernel"
	"disdel/internal/points"
)

// What is made again has the bits that it had, on any number of threads, and takes
// less memory.
func TestRemakeDoesNotShow(t *testing.T) {
	models := append([]Spec{named(t, "cnn-deep", Shape{9, 8, 2}, 4), named(t, "resnet20", Shape{9, 8, 1}, 4)}, gradientModels(t)...)
	smaller := map[string]bool{}
	for _, spec := range points.Some(models) {
		if !spec.WholeBatches() {
			continue
		}
		const batch = 6
		x, y := records(spec, batch, 3)
		for _, set := range someSets(t) {
			var want []uint32
			var total int64
			for _, cfg := range []Config{{}, {Remake: true}, {Remake: true, Threads: 2}} {
				cfg.Batch, cfg.Train, cfg.Optimizer = batch, true, SGD(1e-2)
				in := bindSet(t, spec, cfg, set)
				in.Init(1)
				loss := train(t, in, x, y, 3)
				// A training program also evaluates.
				sum, _, err := in.Evaluate(x, y, scale)
				if err != nil {
					t.Fatal(err)
				}
				last, err := takeStep(in, x[:2*spec.Input.Elements()], y[:2], 4)
				if err != nil {
					t.Fatal(err)
				}
				got := append(state(in), bits([]float32{float32(loss), float32(sum), float32(last)})...)
				size := in.Program().Sizes().Activations
				if want == nil {
					want, total = got, size
				} else if !slices.Equal(got, want) {
					t.Errorf("%s, %s: made again on %d threads shows", spec.Name, set.Name, cfg.Threads)
				}
				if cfg.Remake && size < total {
					smaller[spec.Name] = true
				}
			}
		}
	}
	for _, name := range points.Some([]string{"cnn-deep", "resnet20"}) {
		if !smaller[name] {
			t.Errorf("%s takes no less", name)
		}
	}
}

func TestRemakeSizesArePinned(t *testing.T) {
	for name, want := range map[string][2]int64{
		"resnet20": {103373056, 82382592}, "cnn-deep": {50573632, 38741824}, "cnn": {8039488, 8039488},
	} {
		var got [2]int64
		for i, remake := range []bool{false, true} {
			spec := named(t, name, Shape{32, 32, 3}, 10)
			p, err := Compile(spec, Config{Batch: 64, Train: true, Optimizer: Adam(1e-3), Remake: remake})
			if err != nil {
				t.Fatal(err)
			}
			if got[i] = p.Sizes().Total; spec.Remakes() != spec.WholeBatches() {
				t.Errorf("%s: remakes %v", name, spec.Remakes())
			}
		}
		if got != want {
			t.Errorf("%s: %d and %d bytes, want %d", name, got[0], got[1], want)
		}
	}
}

// BenchmarkRemake says what a step costs whose outputs are made again.
func BenchmarkRemake(b *testing.B) {
	for _, name := range []string{"cnn-deep", "resnet20"} {
		for _, remake := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/remake=%v", name, remake), func(b *testing.B) {
				spec := named(b, name, Shape{32, 32, 3}, 10)
				in := bindSet(b, spec, Config{Batch: 64, Train: true, Optimizer: SGD(1e-2), Remake: remake}, kernel.Best())
				in.Init(1)
				x, y := records(spec, 64, 2)
				step, best := 0, time.Duration(math.MaxInt64)
				for b.Loop() {
					step++
					began := time.Now()
					if _, err := takeStep(in, x, y, step); err != nil {
						b.Fatal(err)
					}
					best = min(best, time.Since(began))
				}
				b.ReportMetric(best.Seconds()*1e3, "best-ms/op")
			})
		}
	}
}
