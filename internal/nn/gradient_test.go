// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"math"
	"testing"
)

// Each model isolates a kind of layer or a neighbourhood that is fused or
// shares memory in its own way.
func gradientModels(t *testing.T) []Spec {
	conv := func(filters, kernel int) Layer { return Layer{Kind: KindConv2D, Filters: filters, Kernel: kernel} }
	dense := func(units int) Layer { return Layer{Kind: KindDense, Units: units} }
	pool := func(size int) Layer { return Layer{Kind: KindMaxPool, Pool: size} }
	relu, flat := Layer{Kind: KindReLU}, Layer{Kind: KindFlatten}
	model := func(name string, in Shape, classes int, layers ...Layer) Spec {
		return Spec{Name: name, Input: in, Classes: classes, Layers: append(layers, dense(classes))}
	}
	return []Spec{
		model("dense", Shape{1, 1, 7}, 3),
		model("dense relu", Shape{1, 1, 7}, 5, dense(9), relu),
		model("dense twice without relu", Shape{1, 1, 7}, 2, dense(6)),
		model("relu on the input", Shape{3, 3, 1}, 3, relu, flat, dense(5), relu, relu),
		model("conv", Shape{5, 6, 2}, 3, conv(5, 3), flat),
		model("conv relu", Shape{5, 5, 1}, 3, conv(4, 2), relu, flat),
		model("conv pool", Shape{6, 7, 1}, 3, conv(4, 3), pool(2), flat),
		model("conv pool relu", Shape{6, 7, 2}, 3, conv(3, 3), pool(2), relu, flat),
		model("conv relu pool, odd", Shape{7, 8, 2}, 4, conv(6, 3), relu, pool(2), flat),
		model("pool on the input", Shape{6, 6, 2}, 3, pool(3), flat),
		model("deep", Shape{13, 12, 2}, 4,
			conv(4, 3), relu, conv(5, 2), relu, pool(2), conv(6, 2), pool(2), flat, relu, dense(8)),
		model("pool alone", Shape{9, 9, 1}, 3, conv(4, 2), relu, pool(2), pool(2), relu, conv(3, 1), flat),
		model("pool of large windows", Shape{14, 14, 1}, 3, conv(3, 2), relu, pool(5), flat),
		model("wide channels", Shape{4, 4, 3}, 3, conv(8, 4), relu, flat, dense(4), relu),
		named(t, "cnn", Shape{8, 8, 1}, 10),
		named(t, "mlp", Shape{4, 4, 2}, 10),
	}
}

func TestGradientsMatchFiniteDifferences(t *testing.T) {
	for _, spec := range gradientModels(t) {
		t.Run(spec.Name, func(t *testing.T) {
			const batch = 5
			var all []*Instance
			x, y := records(spec, batch, 5)
			for _, set := range sets(t) {
				in := bindSet(t, spec, Config{Batch: batch, Train: true, Optimizer: Adam(1e-3)}, set)
				in.Init(3)
				// Biases away from zero, so that their part shows.
				s := stream{key: 9}
				for i := range in.Weights() {
					in.Weights()[i] += float32(int64(s.at(uint64(i))>>40)-1<<23) * 0x1p-26
				}
				all = append(all, in)
			}
			weights := wide(all[0].Weights())
			want := twinLoss(spec, weights, x, y)
			for _, in := range all {
				if loss, err := in.Step(x, y, scale, 1); err != nil || math.Abs(loss-want) > 1e-5*want {
					t.Fatalf("%s: loss %v, %v, want %v", in.set.Name, loss, err, want)
				}
			}
			for _, p := range spec.Params() {
				off, norm := make([]float64, len(all)), 0.0
				step := max(1, p.Len/150) // enough elements of each tensor
				for i := p.Offset; i < p.Offset+p.Len; i += step {
					const h = 1e-6
					w := weights[i]
					weights[i] = w + h
					up := twinLoss(spec, weights, x, y)
					weights[i] = w - h
					down := twinLoss(spec, weights, x, y)
					weights[i] = w
					want := (up - down) / (2 * h)
					norm += want * want
					for k, in := range all {
						d := float64(in.Gradients()[i]) - want
						off[k] += d * d
					}
				}
				for k, in := range all {
					if math.Sqrt(off[k]) > 1e-4*math.Sqrt(norm) {
						t.Errorf("%s, %s: gradient off by %.2g of %.2g", in.set.Name, p.Name, math.Sqrt(off[k]), math.Sqrt(norm))
					}
				}
			}
		})
	}
}
