// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"fmt"
	"math"
	"testing"
	"time"

	"disdel/internal/nn/kernel"
)

func BenchmarkStep(b *testing.B) {
	for _, c := range []struct {
		model string
		in    Shape
		batch int
	}{
		{"cnn", Shape{8, 8, 1}, 8},
		{"cnn", Shape{8, 8, 1}, 64},
		{"cnn", Shape{28, 28, 1}, 64},
		{"cnn", Shape{32, 32, 3}, 64},
		{"mlp", Shape{28, 28, 1}, 64},
		{"cnn-deep", Shape{16, 16, 3}, 16},
	} {
		for _, v := range []struct {
			set     kernel.Set
			threads int
		}{{kernel.Generic(), 1}, {kernel.FMA(), 1}, {kernel.FMA(), 2}} {
			b.Run(fmt.Sprintf("%s-%v-batch%d/%s-threads%d", c.model, c.in, c.batch, v.set.Name, v.threads), func(b *testing.B) {
				spec := named(b, c.model, c.in, 10)
				in := bindSet(b, spec, Config{Batch: c.batch, Train: true, Optimizer: Adam(1e-3), Threads: v.threads, Spin: true}, v.set)
				in.Init(1)
				x, y := records(spec, c.batch, 2)
				t := 0
				for b.Loop() {
					t++
					if _, err := takeStep(in, x, y, t); err != nil {
						b.Fatal(err)
					}
				}
				f := in.Program().FLOPs()
				steps := float64(b.N) / b.Elapsed().Seconds()
				b.ReportMetric(steps*float64(c.batch), "samples/s")
				b.ReportMetric(steps*float64(f.Forward+f.Backward)/1e9, "GFLOP/s")
			})
		}
	}
}

func longRun(b *testing.B, spec Spec, cfg Config) {
	in := bindSet(b, spec, cfg, kernel.FMA())
	x, y := records(spec, 20*cfg.Batch, 2)
	size := cfg.Batch * spec.Input.Elements()
	for b.Loop() {
		in.Init(1)
		for thousand := range 5 {
			// The best of short parts: other work on the machine does not show.
			best := time.Duration(math.MaxInt64)
			for part := range 100 {
				began := time.Now()
				for i := range 10 {
					t := 1000*thousand + 10*part + i + 1
					k := t % 20
					if _, err := takeStep(in, x[k*size:][:size], y[k*cfg.Batch:][:cfg.Batch], t); err != nil {
						b.Fatal(err)
					}
				}
				best = min(best, time.Since(began))
			}
			b.ReportMetric(float64(10*cfg.Batch)/best.Seconds(), fmt.Sprintf("samples/s@%d", 1000*(thousand+1)))
		}
	}
}
