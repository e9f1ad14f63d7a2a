// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"math"
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

// twin is the plainest forward pass, in float64, straight from the layers'
// definitions: no stages, no fusing, no arena. It returns one record's logits.
func twin(spec Spec, weights []float64, x []byte) []float64 {
	v := make([]float64, len(x))
	for i, b := range x {
		v[i] = float64(b) * float64(float32(scale))
	}
	params := spec.Params()
	next := func() []float64 {
		p := params[0]
		params = params[1:]
		return weights[p.Offset : p.Offset+p.Len]
	}
	shapes, _ := spec.shapes()
	in := spec.Input
	for i, l := range spec.Layers {
		out := shapes[i]
		u := make([]float64, out.Elements())
		switch l.Kind {
		case KindFlatten:
			u = v
		case KindReLU:
			for j, a := range v {
				u[j] = math.Max(a, 0)
			}
		case KindDense:
			w, b := next(), next()
			for o := range u {
				u[o] = b[o]
				for j, a := range v {
					u[o] += a * w[j*l.Units+o]
				}
			}
		case KindMaxPool:
			for j := range u {
				y, x, c := j/(out.W*out.C), j/out.C%out.W, j%out.C
				u[j] = math.Inf(-1)
				for k := range l.Pool * l.Pool {
					u[j] = math.Max(u[j], v[((y*l.Pool+k/l.Pool)*in.W+x*l.Pool+k%l.Pool)*in.C+c])
				}
			}
		case KindConv2D:
			w, b := next(), next()
			for j := range u {
				y, x, f := j/(out.W*out.C), j/out.C%out.W, j%out.C
				u[j] = b[f]
				for k := range l.Kernel * l.Kernel * in.C {
					ky, kx, c := k/(l.Kernel*in.C), k/in.C%l.Kernel, k%in.C
					u[j] += v[((y+ky)*in.W+x+kx)*in.C+c] * w[k*l.Filters+f]
				}
			}
		}
		v, in = u, out
	}
	return v
}

// twinLoss is the mean cross-entropy of all records.
func twinLoss(spec Spec, weights []float64, x []byte, y []uint16) float64 {
	sum, size := 0.0, spec.Input.Elements()
	for i, label := range y {
		logits := twin(spec, weights, x[i*size:][:size])
		top, e := math.Inf(-1), 0.0
		for _, v := range logits {
			top = math.Max(top, v)
		}
		for _, v := range logits {
			e += math.Exp(v - top)
		}
		sum += math.Log(e) + top - logits[label]
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
