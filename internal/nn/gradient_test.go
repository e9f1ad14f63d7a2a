// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"math"
	"slices"
	"testing"

	"disdel/internal/points"
)

// Each model isolates a kind of layer or a neighbourhood that is fused or
// shares memory in its own way.
func gradientModels(t *testing.T) []Spec {
	conv := func(filters, kernel int) Layer { return Layer{Kind: KindConv2D, Filters: filters, Kernel: kernel} }
	dense := func(units int) Layer { return Layer{Kind: KindDense, Units: units} }
	pool := func(size int) Layer { return Layer{Kind: KindMaxPool, Pool: size} }
	avg := func(size int) Layer { return Layer{Kind: KindAvgPool, Pool: size} }
	drop := func(rate float64) Layer { return Layer{Kind: KindDropout, Rate: rate} }
	relu, flat, norm := Layer{Kind: KindReLU}, Layer{Kind: KindFlatten}, Layer{Kind: KindBatchNorm}
	add := func(back int) Layer { return Layer{Kind: KindAdd, Back: back} }
	global := Layer{Kind: KindGlobalAvg}
	bare := func(l Layer) Layer {
		l.NoBias = true
		return l
	}
	with := func(l Layer, stride int, padding string) Layer {
		l.Stride, l.Padding = stride, padding
		return l
	}
	strided := func(back, stride int) Layer { return Layer{Kind: KindAdd, Back: back, Stride: stride} }
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
		model("same, odd kernel", Shape{5, 6, 2}, 3, with(conv(4, 3), 1, PaddingSame), flat),
		model("same, even kernel", Shape{5, 6, 1}, 3, with(conv(4, 4), 1, PaddingSame), relu, flat),
		model("same, stride 2, even and odd sides", Shape{6, 7, 2}, 3, with(conv(4, 3), 2, PaddingSame), relu, flat),
		model("same, stride over kernel", Shape{7, 8, 1}, 3, with(conv(4, 2), 3, PaddingSame), flat),
		model("same, kernel over input", Shape{2, 3, 2}, 3, with(conv(4, 5), 1, PaddingSame), flat),
		model("valid, stride 2", Shape{8, 9, 2}, 3, with(conv(4, 3), 2, PaddingValid), relu, flat),
		model("stride and same, pooled, deep", Shape{13, 12, 2}, 4,
			with(conv(4, 3), 1, PaddingSame), relu, pool(2), with(conv(5, 3), 2, PaddingSame), pool(2), relu,
			with(conv(4, 2), 2, PaddingSame), flat),
		// What a first convolution reads and makes, wanted after the dense layer too.
		model("the input past conv and dense", Shape{4, 5, 2}, 3, conv(3, 2), relu, flat, dense(6), strided(5, 5)),
		model("conv past dense", Shape{4, 5, 2}, 3, conv(3, 2), relu, flat, dense(6), strided(3, 4)),
		model("pooled conv past dense", Shape{6, 7, 1}, 3, conv(4, 3), pool(2), relu, flat, dense(16), add(2)),
		model("avgpool on the input", Shape{6, 7, 2}, 3, avg(3), flat),
		model("avgpool", Shape{8, 7, 1}, 3, conv(4, 2), avg(2), flat),
		model("avgpool of rectified", Shape{8, 7, 1}, 3, conv(4, 2), relu, avg(3), relu, flat, dense(4)),
		model("no bias", Shape{6, 6, 1}, 3, bare(conv(4, 3)), relu, bare(with(conv(9, 2), 1, PaddingSame)), pool(2), flat, bare(dense(7)), norm, relu),
		model("dropout on the input", Shape{5, 5, 1}, 3, drop(0.4), conv(4, 2), relu, flat),
		model("dropout", Shape{1, 1, 9}, 3, dense(12), drop(0.5), dense(8), relu, drop(0.25)),
		model("dropout inside", Shape{8, 8, 1}, 3, conv(4, 3), relu, drop(0.3), pool(2), drop(0.2), avg(2), drop(0.1), flat),
		model("batchnorm on the input", Shape{4, 5, 2}, 3, norm, flat),
		model("batchnorm of dense", Shape{1, 1, 9}, 3, dense(20), norm, relu, dense(6), relu, norm),
		model("batchnorm of conv", Shape{5, 6, 2}, 3, conv(5, 2), norm, flat),
		model("batchnorm relu pool, odd", Shape{6, 8, 1}, 3, conv(18, 2), norm, relu, pool(2), flat),
		model("batchnorm pool relu", Shape{6, 8, 1}, 3, conv(4, 2), relu, norm, pool(3), relu, flat),
		model("batchnorm pool", Shape{6, 6, 1}, 3, with(conv(4, 3), 1, PaddingSame), norm, pool(2), conv(3, 2), flat, norm),
		model("globalavgpool on the input", Shape{5, 4, 3}, 3, global),
		model("globalavgpool", Shape{6, 7, 2}, 3, conv(18, 2), global, dense(5)),
		model("globalavgpool of rectified", Shape{6, 7, 2}, 3, conv(5, 2), relu, global),
		model("add", Shape{5, 4, 2}, 3, with(conv(4, 3), 1, PaddingSame), relu, with(conv(4, 3), 1, PaddingSame), add(2), relu, flat),
		model("add of rectified to rectified", Shape{5, 4, 2}, 3, with(conv(4, 3), 1, PaddingSame), relu, with(conv(4, 3), 1, PaddingSame), relu, add(3), flat),
		model("add over two", Shape{5, 4, 2}, 3, with(conv(4, 3), 1, PaddingSame), with(conv(3, 3), 1, PaddingSame), relu, with(conv(4, 2), 1, PaddingSame), add(4), global),
		model("add of the input", Shape{4, 5, 3}, 3, with(conv(3, 3), 1, PaddingSame), add(2), relu, flat, dense(4)),
		model("add before activation", Shape{4, 5, 1}, 3, with(conv(4, 3), 1, PaddingSame), relu, with(conv(4, 3), 1, PaddingSame), add(3), relu, with(conv(4, 3), 1, PaddingSame), add(3), global),
		model("add of one output twice", Shape{1, 1, 7}, 3, dense(6), relu, dense(6), add(2), dense(6), relu, add(5), dense(5), relu),
		model("add to a sum", Shape{1, 1, 7}, 3, dense(6), dense(6), dense(6), add(2), add(4), relu),
		model("add of the same twice", Shape{1, 1, 16}, 3, flat, add(2), dense(6), drop(0), add(2), relu),
		model("add around dropout", Shape{1, 1, 7}, 3, dense(6), drop(0.3), dense(6), drop(0.2), add(4), drop(0.4), add(5), relu),
		model("add around pools", Shape{7, 6, 1}, 3, conv(4, 2), relu, avg(2), with(conv(4, 2), 1, PaddingSame), norm, pool(2), relu, with(conv(4, 2), 1, PaddingSame), avg(1), add(3), flat),
		model("add before a batchnorm", Shape{5, 4, 1}, 3, with(conv(4, 3), 1, PaddingSame), norm, relu, with(conv(4, 3), 1, PaddingSame), norm, add(4), norm, relu, global),
		model("add of a batchnorm's input", Shape{5, 4, 1}, 3, with(conv(4, 3), 1, PaddingSame), norm, add(2), norm, relu, flat),
		model("add with a stride", Shape{5, 6, 2}, 3, with(conv(4, 3), 1, PaddingSame), relu, with(conv(6, 3), 2, PaddingSame), norm, strided(3, 2), relu, global),
		model("add of fewer channels, odd", Shape{7, 5, 1}, 3, with(conv(3, 3), 1, PaddingSame), norm, relu, with(conv(5, 3), 3, PaddingSame), strided(2, 3), relu, flat),
		model("residual blocks", Shape{5, 6, 1}, 3, slices.Concat(
			convNorm(3, 0), []Layer{relu},
			convNorm(3, 0), []Layer{relu}, convNorm(3, 0), []Layer{add(6), relu},
			convNorm(5, 2), []Layer{relu}, convNorm(5, 0), []Layer{strided(6, 2), relu, global})...),
		narrow(named(t, "lenet5", Shape{13, 12, 1}, 4)),
		named(t, "cnn", Shape{8, 8, 1}, 10),
		narrow(named(t, "cnn-deep", Shape{5, 4, 1}, 4)),
		named(t, "mlp", Shape{4, 4, 2}, 10),
	}
}

func gradientModel(t *testing.T, name string) Spec {
	t.Helper()
	for _, s := range gradientModels(t) {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no model %q", name)
	return Spec{}
}

// narrow returns the model with an eighth of its filters and units.
func narrow(s Spec) Spec {
	for i := range s.Layers[:len(s.Layers)-1] {
		s.Layers[i].Filters = (s.Layers[i].Filters + 7) / 8
		s.Layers[i].Units = (s.Layers[i].Units + 7) / 8
	}
	s.Name = "narrow " + s.Name
	return s
}

func TestGradientsMatchFiniteDifferences(t *testing.T) {
	for _, spec := range points.Some(gradientModels(t)) {
		t.Run(spec.Name, func(t *testing.T) {
			const batch = 5
			var all []*Instance
			x, y := records(spec, batch, 5)
			for _, set := range sets(t) {
				in := bindSet(t, spec, Config{Batch: batch, Train: true, Optimizer: Adam(1e-3), KeepGradients: true}, set)
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
				if loss, err := takeStep(in, x, y, 1); err != nil || math.Abs(loss-want) > 1e-5*want {
					t.Fatalf("%s: loss %v, %v, want %v", in.set.Name, loss, err, want)
				}
			}
			for _, p := range Learned(spec.Params()) {
				off, norm := make([]float64, len(all)), 0.0
				// Enough elements of each tensor, fewer where a pass takes long.
				step := points.Stride * max(1, p.Len/(15+60_000/len(weights)))
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
				// The gradient of a bias before a batchnorm is zero but for rounding.
				for k, in := range all {
					if math.Sqrt(off[k]) > 1e-4*math.Sqrt(norm)+3e-6 {
						t.Errorf("%s, %s: gradient off by %.2g of %.2g", in.set.Name, p.Name, math.Sqrt(off[k]), math.Sqrt(norm))
					}
				}
			}
		})
	}
}
