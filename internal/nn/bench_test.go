// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"fmt"
	"testing"
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
		b.Run(fmt.Sprintf("%s-%v-batch%d", c.model, c.in, c.batch), func(b *testing.B) {
			spec := named(b, c.model, c.in, 10)
			in := bind(b, spec, Config{Batch: c.batch, Train: true, Optimizer: Adam(1e-3)})
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
