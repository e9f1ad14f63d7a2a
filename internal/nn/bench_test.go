// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"fmt"
	"math"
	"slices"
	"syscall"
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

// BenchmarkTrain takes steps of the thesis's model in chunks, at least 2,000 steps
// in all, and reports the rates of the best and of the median chunk, and of the last
// tenth: by then moments that see no gradient have decayed below the normal
// numbers, which must not slow steps down.
func BenchmarkTrain(b *testing.B) {
	for _, in := range []Shape{{28, 28, 1}, {32, 32, 3}} {
		for _, batch := range []int{32, 64, 128} {
			for _, threads := range []int{1, 2} {
				b.Run(fmt.Sprintf("%v-batch%d-threads%d", in, batch, threads), func(b *testing.B) {
					longRun(b, named(b, "cnn", in, 10), Config{Batch: batch, Threads: threads}, 20, 100)
				})
			}
		}
	}
}

// BenchmarkModels is BenchmarkTrain for the other models, in as many steps as the
// benchmark's time allows.
func BenchmarkModels(b *testing.B) {
	for _, model := range Names() {
		if model == "cnn" {
			continue
		}
		in := Shape{32, 32, 3}
		if model == "mlp" {
			in = Shape{28, 28, 1}
		}
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s-%v-batch64-threads%d", model, in, threads), func(b *testing.B) {
				longRun(b, named(b, model, in, 10), Config{Batch: 64, Threads: threads}, 2, 1)
			})
		}
	}
}

// longRun takes at least so many chunks of steps.
func longRun(b *testing.B, spec Spec, cfg Config, chunk, chunks int) {
	const batches = 20
	cfg.Train, cfg.Optimizer, cfg.Spin = true, Adam(1e-3), true
	in := bindSet(b, spec, cfg, kernel.FMA())
	x, y := records(spec, batches*cfg.Batch, 2)
	size := cfg.Batch * spec.Input.Elements()
	in.Init(1)
	var times []time.Duration
	work := time.Duration(math.MaxInt64) // of the processors, in the best chunk
	t := 0
	take := func() {
		began, before := time.Now(), processors(b)
		for range chunk {
			k := t % batches
			t++
			if _, err := takeStep(in, x[k*size:][:size], y[k*cfg.Batch:][:cfg.Batch], t); err != nil {
				b.Fatal(err)
			}
		}
		times = append(times, time.Since(began))
		work = min(work, processors(b)-before)
	}
	for b.Loop() {
		take()
	}
	if b.N > 1 { // not the trial that only finds how many fit
		for len(times) < chunks {
			take()
		}
	}
	rate := func(times []time.Duration, i int) float64 {
		sorted := slices.Sorted(slices.Values(times))
		return float64(chunk*cfg.Batch) / sorted[i].Seconds()
	}
	late := times[len(times)-(len(times)+9)/10:]
	b.ReportMetric(rate(times, 0), "best/s")
	b.ReportMetric(rate(times, len(times)/2), "median/s")
	b.ReportMetric(rate(late, 0), "late/s")
	// Other work on the machine shows less here.
	b.ReportMetric(float64(chunk*cfg.Batch)/work.Seconds(), "best/cpu-s")
	f := in.Program().FLOPs()
	b.ReportMetric(rate(times, 0)/float64(cfg.Batch)*float64(f.Forward+f.Backward)/1e9, "GFLOP/s")
	b.ReportMetric(0, "ns/op")
}

// processors returns the processor time that this process has taken.
func processors(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPredict is inference in batches of 256 and of one record.
func BenchmarkPredict(b *testing.B) {
	for _, model := range Names() {
		for _, batch := range []int{1, 256} {
			for _, threads := range []int{1, 2} {
				b.Run(fmt.Sprintf("%s-batch%d-threads%d", model, batch, threads), func(b *testing.B) {
					spec := named(b, model, Shape{28, 28, 1}, 10)
					in := bindSet(b, spec, Config{Batch: batch, Threads: threads, Spin: true}, kernel.FMA())
					in.Init(1)
					x, _ := records(spec, batch, 2)
					best := time.Duration(math.MaxInt64)
					for b.Loop() {
						began := time.Now()
						if _, err := in.Predict(x, batch, scale); err != nil {
							b.Fatal(err)
						}
						best = min(best, time.Since(began))
					}
					b.ReportMetric(float64(batch)/best.Seconds(), "best/s")
				})
			}
		}
	}
}
