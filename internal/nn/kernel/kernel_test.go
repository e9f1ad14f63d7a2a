// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"disdel/internal/points"
)

// numbers returns n values with gaps of zeros and of different sizes.
func numbers(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		if r.IntN(8) > 0 {
			v[i] = float32(r.NormFloat64() * math.Exp2(float64(r.IntN(20)-10)))
		}
	}
	return v
}

// same fails unless a and b have equal bits.
func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: value %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

// Tiles of any shape are one chain per element, in the stated order: the naive
// loops give the same bits.
func TestAccumulateIsOneChainPerElement(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range points.Count(500) {
		m, n, outer, inner := 1+r.IntN(7), 1+r.IntN(11), 1+r.IntN(4), 1+r.IntN(9)
		a := factor{row: 1 + r.IntN(30), outer: 1 + r.IntN(30), inner: 1 + r.IntN(3)}
		a.data = numbers(r, (m-1)*a.row+(outer-1)*a.outer+(inner-1)*a.inner+1)
		rowB, rowC := n+r.IntN(3), n+r.IntN(3)
		b, c := numbers(r, outer*inner*rowB), numbers(r, m*rowC)
		want := append([]float32(nil), c...)
		for i := range m {
			for j := range n {
				for p := range outer {
					for q := range inner {
						want[i*rowC+j] += float32(a.data[i*a.row+p*a.outer+q*a.inner] * b[(p*inner+q)*rowB+j])
					}
				}
			}
		}
		accumulate(m, n, outer, inner, a, b, rowB, c, rowC)
		same(t, "c", c, want)
	}
}

func TestDenseOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range points.Count(200) {
		g := Dense{In: 1 + r.IntN(300), Out: 1 + r.IntN(11), ReLU: r.IntN(2) > 0, Rectified: r.IntN(2) > 0}
		n := 1 + r.IntN(150)
		x, w, bias := numbers(r, n*g.In), numbers(r, g.In*g.Out), numbers(r, g.Out)
		dy, dw, db := numbers(r, n*g.Out), numbers(r, g.In*g.Out), numbers(r, g.Out)
		y := make([]float32, n*g.Out)
		wantDW, wantDB := append([]float32(nil), dw...), append([]float32(nil), db...)
		wantY, wantDX := make([]float32, n*g.Out), make([]float32, n*g.In)
		for i := range n {
			for o := range g.Out {
				s := bias[o]
				d := dy[i*g.Out+o]
				wantDB[o] += d
				for k := range g.In {
					s += float32(x[i*g.In+k] * w[k*g.Out+o])
					wantDW[k*g.Out+o] += float32(x[i*g.In+k] * d)
					wantDX[i*g.In+k] += float32(d * w[k*g.Out+o])
				}
				if wantY[i*g.Out+o] = s; g.ReLU && s < 0 {
					wantY[i*g.Out+o] = 0
				}
			}
		}
		for i := range wantDX {
			if g.Rectified && x[i] <= 0 || wantDX[i] == 0 {
				wantDX[i] = 0
			}
		}
		denseForward(g, n, x, w, bias, y)
		same(t, "y", y, wantY)
		denseBackward(g, n, 0, g.In, x, w, dy, dw, db, x)
		same(t, "dw", dw, wantDW)
		same(t, "db", db, wantDB)
		same(t, "dx", x, wantDX)
	}
}

func TestExpAndLog(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	check := func(name string, x, got, want float64) {
		if math.Abs(got-want) > 0x1p-51*math.Abs(want) {
			t.Errorf("%s(%v) = %v, want %v", name, x, got, want)
		}
	}
	for range 200000 {
		x := r.NormFloat64() * math.Exp2(float64(r.IntN(14)-5))
		if x > -707 && x < 709 {
			check("exp", x, exp(x), math.Exp(x))
		}
		x = math.Exp(r.NormFloat64() * math.Exp2(float64(r.IntN(20)-14)))
		if x > 0x1p-1022 && !math.IsInf(x, 1) {
			check("log", x, log(x), math.Log(x))
		}
	}
	for x := 1.0; x < 70000; x++ {
		check("log", x, log(x), math.Log(x))
	}
	inf := math.Inf(1)
	for _, c := range []struct{ got, want float64 }{
		{exp(0), 1},
		{exp(math.Copysign(0, -1)), 1},
		{exp(-inf), 0},
		{exp(-1e300), 0},
		{exp(inf), inf},
		{exp(710), inf},
		{log(1), 0},
	} {
		if c.got != c.want {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
	for _, v := range []float64{exp(math.NaN()), log(math.NaN()), log(inf), log(0), log(-1)} {
		if !math.IsNaN(v) {
			t.Errorf("%v is not NaN", v)
		}
	}
}

// The last bits of exp and log reach the weights, so they are pinned: every
// platform must compute these.
func TestExpAndLogArePinned(t *testing.T) {
	h := uint64(14695981039346656037)
	add := func(v float64) { h = (h ^ math.Float64bits(v)) * 1099511628211 }
	for i := range 20000 {
		add(exp(-float64(i) / 64))
		add(log(1 + float64(i)/128))
	}
	if h != pinned {
		t.Errorf("%#x, want %#x", h, uint64(pinned))
	}
}

const pinned = 0xd31d7e5387890e5f

func TestCrossEntropy(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		logits []float32
		label  int
		want   float64
	}{
		{[]float32{0, 0}, 0, math.Ln2},
		{[]float32{1000, 0, -1000}, 0, 0},
		{[]float32{1000, 0, -1000}, 2, 2000},
		{[]float32{1, 2, 3}, 1, 1.4076059644443804},
		{[]float32{0, -inf}, 0, 0},
		{[]float32{0, -inf}, 1, math.Inf(1)},
		{[]float32{nan, 0}, 1, math.NaN()},
		{[]float32{0, nan}, 0, math.NaN()},
		{[]float32{inf, 0}, 0, math.NaN()},
	} {
		got := CrossEntropy(c.logits, c.label)
		if math.Abs(got-c.want) > 1e-14 || math.IsNaN(got) != math.IsNaN(c.want) {
			t.Errorf("%v: %v, want %v", c, got, c.want)
		}
	}
	logits := []float32{1, 2, 3, -200}
	CrossEntropyGradient(logits, 1, 0.5)
	for i, want := range []float64{0.0450152866, -0.3776357645, 0.3326204778, 0} {
		if math.Abs(float64(logits[i])-want) > 1e-7 {
			t.Errorf("gradient %d: %v, want %v", i, logits[i], want)
		}
	}
	if logits[3] != 0 {
		t.Errorf("a gradient below the normal numbers is %v", logits[3])
	}
}

func TestElementwise(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	negative := float32(math.Copysign(0, -1))
	v := []float32{-1, negative, 0, 0x1p-127, -0x1p-127, 0x1p-126, -0x1p-126, 5, inf, -inf, nan}
	f := append([]float32(nil), v...)
	flushAll(f)
	same(t, "flush", f, []float32{-1, 0, 0, 0, 0, 0x1p-126, -0x1p-126, 5, inf, -inf, nan})
	ReLU(v)
	same(t, "relu", v, []float32{0, 0, 0, 0, 0, 0x1p-126, 0, 5, inf, 0, nan})
	if !Finite([]float32{1, -3e38, 0x1p-149, 3e38}) || Finite([]float32{1, inf}) || Finite([]float32{nan, 1}) || Finite([]float32{inf, -inf}) {
		t.Error("finite")
	}
	if ArgMax([]float32{1, 3, 3, 2}) != 1 || ArgMax([]float32{5}) != 0 {
		t.Error("argmax")
	}
	// Equal values: the first. NaN wins.
	y, arg := make([]float32, 4), make([]uint8, 4)
	MaxPool(Pool{H: 2, W: 9, C: 1, Size: 2}, 1, []float32{1, 1, 0, 2, 0, nan, nan, 3, 99, 1, 1, 4, 4, 1, 2, 1, 1, 99}, y, arg)
	same(t, "pool", y, []float32{1, 4, nan, nan})
	for i, want := range []uint8{0, 2, 1, 0} {
		if arg[i] != want {
			t.Errorf("place %d is %d, want %d", i, arg[i], want)
		}
	}
}
