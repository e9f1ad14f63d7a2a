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
		{"cnn-deep", Shape{32, 32, 3}, 64},
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

// BenchmarkTrain takes 5,000 steps of the thesis's model, and reports the rate over
// all of them and the rates of the best steps near the 50th and the last: by then moments that see no
// gradient have decayed below the normal numbers, which must not slow steps down.
func BenchmarkTrain(b *testing.B) {
	for _, in := range []Shape{{28, 28, 1}, {32, 32, 3}} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%v-batch64/threads%d", in, threads), func(b *testing.B) { longRun(b, named(b, "cnn", in, 10), threads) })
		}
	}
}

func longRun(b *testing.B, spec Spec, threads int) {
	const steps, batch, batches = 5000, 64, 20
	in := bindSet(b, spec, Config{Batch: batch, Train: true, Optimizer: Adam(1e-3), Threads: threads, Spin: true}, kernel.FMA())
	x, y := records(spec, batches*batch, 2)
	size := batch * spec.Input.Elements()
	early, late, total := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64), 0
	for b.Loop() {
		in.Init(1)
		for t := range steps {
			k := t % batches
			began := time.Now()
			if _, err := takeStep(in, x[k*size:][:size], y[k*batch:][:batch], t+1); err != nil {
				b.Fatal(err)
			}
			// The best: other work on the machine does not show.
			switch took := time.Since(began); {
			case t < 100:
				early = min(early, took)
			case t >= steps-100:
				late = min(late, took)
			}
			total += batch
		}
	}
	b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "samples/s")
	b.ReportMetric(batch/early.Seconds(), "samples/s@50")
	b.ReportMetric(batch/late.Seconds(), "samples/s@5000")
}
