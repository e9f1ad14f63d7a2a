// SPDX-License-Identifier: Apache-2.0

package kernel

import "testing"

func BenchmarkTile(b *testing.B) {
	const m, n, k = 64, 64, 128
	x, w, c := make([]float32, m*k), make([]float32, k*n), make([]float32, m*n)
	b.Run("accumulate", func(b *testing.B) {
		for b.Loop() {
			accumulate(m, n, 1, k, factor{x, k, 0, 1}, w, n, c, n)
		}
		b.ReportMetric(2*m*n*k*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	})
	b.Run("conv", func(b *testing.B) {
		for b.Loop() {
			accumulate(26, 32, 3, 3, factor{x, 1, 28, 1}, w, 32, c, 32)
		}
		b.ReportMetric(2*26*32*9*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	})
	b.Run("dot4", func(b *testing.B) {
		var s float32
		for b.Loop() {
			for i := range 64 {
				for j := 0; j < 64; j += 4 {
					r0, _, _, _ := dot4(x[i*k:][:k], w[j*k:], w[(j+1)*k:], w[(j+2)*k:], w[(j+3)*k:])
					s += r0
				}
			}
		}
		b.ReportMetric(2*64*64*k*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	})
}
