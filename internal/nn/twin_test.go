// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"math"
	"slices"
	"testing"
	"unsafe"

	"disdel/internal/nn/kernel"
)

// alignedBytes returns n bytes at an aligned address.
func alignedBytes(n int) []byte {
	b := make([]byte, n+alignment)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (alignment - 1)
	return b[skip : skip+n : skip+n]
}

// bind compiles and binds over fresh memory, with generic-1.
func bind(t testing.TB, spec Spec, cfg Config) *Instance {
	t.Helper()
	return bindSet(t, spec, cfg, kernel.Generic())
}

// bindSet is bind with any set.
func bindSet(t testing.TB, spec Spec, cfg Config, set kernel.Set) *Instance {
	t.Helper()
	p, err := Compile(spec, cfg)
	if err != nil {
		t.Fatal(err)
	}
	in, err := p.Bind(alignedBytes(int(p.Sizes().Total)), set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	return in
}

func named(t testing.TB, name string, in Shape, classes int) Spec {
	t.Helper()
	s, err := Named(name, in, classes)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// small returns a small shape that the model takes.
func small(name string, in Shape) Shape {
	if name == "lenet5" {
		return Shape{lenetSide, lenetSide, in.C}
	}
	return in
}

// records returns n pseudo-random records and labels.
func records(spec Spec, n int, seed uint64) (x []byte, y []uint16) {
	s := stream{key: seed}
	x = make([]byte, n*spec.Input.Elements())
	for i := range x {
		x[i] = byte(s.at(uint64(i)) >> 56)
	}
	y = make([]uint16, n)
	for i := range y {
		y[i] = uint16(s.at(uint64(i)+1<<40) % uint64(spec.Classes))
	}
	return x, y
}

const scale = 1.0 / 255

// takeStep takes step t, of replica 3 with seed 7.
func takeStep(in *Instance, x []byte, y []uint16, t int) (float64, error) {
	return in.Step(StepInput{Pixels: x, Labels: y, Scale: scale, Step: t, Seed: 7, Replica: 3})
}

// twin is the plainest forward pass of a batch, in float64, straight from the
// layers' definitions: no stages, no fusing, no arena. It returns each record's
// logits: as the step p trains on them, or if p is nil, as they are.
func twin(spec Spec, weights []float64, x []byte, p *StepInput) [][]float64 {
	size := spec.Input.Elements()
	batch := make([][]float64, len(x)/size)
	for r := range batch {
		batch[r] = make([]float64, size)
		for i, b := range x[r*size:][:size] {
			batch[r][i] = float64(b) * float64(float32(scale))
		}
	}
	params := spec.Params()
	learned, states := Learned(params), params[len(Learned(params)):]
	next := func(from *[]Param) []float64 {
		p := (*from)[0]
		*from = (*from)[1:]
		return weights[p.Offset : p.Offset+p.Len]
	}
	shapes, _ := spec.shapes()
	in := spec.Input
	var outputs [][][]float64 // of the input and all layers
	keep := func() {
		var all [][]float64
		for _, v := range batch {
			all = append(all, slices.Clone(v))
		}
		outputs = append(outputs, all)
	}
	keep()
	for i, l := range spec.Layers {
		if i > 0 {
			keep()
		}
		out := shapes[i]
		switch l.Kind {
		case KindAdd:
			from, stride := spec.Input, max(l.Stride, 1)
			if i >= l.Back {
				from = shapes[i-l.Back]
			}
			for r, v := range batch {
				for j := range v {
					if y, x, c := j/(in.W*in.C)*stride, j/in.C%in.W*stride, j%in.C; c < from.C {
						v[j] += outputs[i-l.Back+1][r][(y*from.W+x)*from.C+c]
					}
				}
			}
			continue
		case KindBatchNorm:
			twinNorm(batch, in.C, next(&learned), next(&learned), next(&states), next(&states), p != nil)
			continue
		case KindDropout:
			if p == nil {
				continue
			}
			d := newDropout(i, l.Rate)
			mask := d.mask(*p)
			for r, v := range batch {
				for j := range v {
					if u := float64(mask.at(uint64(r*len(v)+j))>>11) * 0x1p-53; u < float64(d.below)*0x1p-24 {
						v[j] = 0
					}
					v[j] /= 1 - l.Rate
				}
			}
			continue
		}
		var w, b []float64
		if l.Kind == KindConv2D || l.Kind == KindDense {
			w, b = next(&learned), make([]float64, out.C)
			if !l.NoBias {
				b = next(&learned)
			}
		}
		for r, v := range batch {
			batch[r] = twinLayer(l, in, out, v, w, b)
		}
		in = out
	}
	return batch
}

// twinLayer is a layer that sees one record at a time.
func twinLayer(l Layer, in, out Shape, v, w, b []float64) []float64 {
	u := make([]float64, out.Elements())
	for j := range u {
		y, x, c := j/(out.W*out.C), j/out.C%out.W, j%out.C
		switch l.Kind {
		case KindFlatten:
			u[j] = v[j]
		case KindReLU:
			u[j] = math.Max(v[j], 0)
		case KindGlobalAvg:
			for k := j; k < len(v); k += in.C {
				u[j] += v[k] / float64(in.H*in.W)
			}
		case KindDense:
			u[j] = b[j]
			for i, a := range v {
				u[j] += a * w[i*l.Units+j]
			}
		case KindMaxPool, KindAvgPool:
			top, sum := math.Inf(-1), 0.0
			for k := range l.Pool * l.Pool {
				a := v[((y*l.Pool+k/l.Pool)*in.W+x*l.Pool+k%l.Pool)*in.C+c]
				top, sum = math.Max(top, a), sum+a
			}
			if u[j] = top; l.Kind == KindAvgPool {
				u[j] = sum / float64(l.Pool*l.Pool)
			}
		case KindConv2D:
			// The first window starts so far before the input that as much, or
			// one more, is after it.
			stride, before := max(l.Stride, 1), [2]int{}
			if l.Padding == PaddingSame {
				before[0] = max(0, (out.H-1)*stride+l.Kernel-in.H) / 2
				before[1] = max(0, (out.W-1)*stride+l.Kernel-in.W) / 2
			}
			u[j] = b[c]
			for k := range l.Kernel * l.Kernel * in.C {
				sy := y*stride - before[0] + k/(l.Kernel*in.C)
				sx := x*stride - before[1] + k/in.C%l.Kernel
				if sy >= 0 && sy < in.H && sx >= 0 && sx < in.W {
					u[j] += v[(sy*in.W+sx)*in.C+k%in.C] * w[k*l.Filters+c]
				}
			}
		}
	}
	return u
}

// twinNorm normalises a batch in place.
func twinNorm(batch [][]float64, channels int, gamma, beta, mean, variance []float64, training bool) {
	for c := range channels {
		m, s := mean[c], variance[c]
		if training {
			n := 0.0
			m, s = 0, 0
			for _, v := range batch {
				for i := c; i < len(v); i += channels {
					m, s, n = m+v[i], s+v[i]*v[i], n+1
				}
			}
			m /= n
			s = s/n - m*m
		}
		for _, v := range batch {
			for i := c; i < len(v); i += channels {
				v[i] = gamma[c]*(v[i]-m)/math.Sqrt(s+1e-3) + beta[c]
			}
		}
	}
}

// twinLoss is the mean cross-entropy of the records of step 1, as takeStep
// takes it.
func twinLoss(spec Spec, weights []float64, x []byte, y []uint16) float64 {
	sum := 0.0
	for i, logits := range twin(spec, weights, x, &StepInput{Step: 1, Seed: 7, Replica: 3}) {
		top, e := math.Inf(-1), 0.0
		for _, v := range logits {
			top = math.Max(top, v)
		}
		for _, v := range logits {
			e += math.Exp(v - top)
		}
		sum += math.Log(e) + top - logits[y[i]]
	}
	return sum / float64(len(y))
}

func wide(v []float32) []float64 {
	u := make([]float64, len(v))
	for i, a := range v {
		u[i] = float64(a)
	}
	return u
}
