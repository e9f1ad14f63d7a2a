// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"disdel/internal/points"
)

// randomConv draws a geometry whose windows all meet the input.
func randomConv(r *rand.Rand) Conv {
	for {
		g := Conv{
			H: 1 + r.IntN(9), W: 1 + r.IntN(9), C: 1 + r.IntN(3), K: 1 + r.IntN(5), F: 1 + r.IntN(10),
			Pool: 1 + r.IntN(3), Stride: r.IntN(4), ReLU: r.IntN(2) > 0, Rectified: r.IntN(2) > 0,
		}
		if r.IntN(3) > 0 {
			g.Pad = Pad{r.IntN(g.K), r.IntN(g.K), r.IntN(g.K), r.IntN(g.K)}
		}
		if g.H+g.Pad.Top+g.Pad.Bottom < g.K || g.W+g.Pad.Left+g.Pad.Right < g.K {
			continue
		}
		if h, w := g.Out(); h > 0 && w > 0 {
			return g
		}
	}
}

// naiveConv is the convolution by its definition, in the stated order of sums:
// output [n, h, w, F] before pooling, bias first.
func naiveConv(g Conv, n int, x, w, bias []float32) (y []float32, h, width int) {
	plain := g
	plain.Pool = 1
	h, width = plain.Out()
	for i := range n * h * width * g.F {
		f, ox, oy, r := i%g.F, i/g.F%width, i/g.F/width%h, i/g.F/width/h
		s := bias[f]
		for k := range g.K * g.K * g.C {
			iy := oy*g.stride() - g.Pad.Top + k/(g.K*g.C)
			ix := ox*g.stride() - g.Pad.Left + k/g.C%g.K
			if iy >= 0 && iy < g.H && ix >= 0 && ix < g.W {
				s += float32(x[((r*g.H+iy)*g.W+ix)*g.C+k%g.C] * w[k*g.F+f])
			}
		}
		y = append(y, s)
	}
	return y, h, width
}

func TestGenericConvOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range points.Count(1000) {
		g := randomConv(r)
		n := 1 + r.IntN(3)
		x, w, bias := numbers(r, n*g.H*g.W*g.C), numbers(r, g.weights()*g.F), numbers(r, g.F)
		outH, outW := g.Out()
		full, h, width := naiveConv(g, n, x, w, bias)
		want, places := make([]float32, n*outH*outW*g.F), make([]uint8, n*outH*outW*g.F)
		if g.Pool == 1 {
			copy(want, full)
		} else {
			MaxPool(Pool{h, width, g.F, g.Pool}, n, full, want, places)
		}
		if flushAll(want); g.ReLU {
			ReLU(want)
		}
		y, arg, scratch := make([]float32, len(want)), make([]uint8, len(want)), make([]float32, g.ForwardScratch())
		convForward(g, n, x, w, bias, y, arg, scratch)
		same(t, "y", y, want)
		if g.Pool > 1 && !slices.Equal(arg, places) {
			t.Fatalf("%+v: places %v, want %v", g, arg, places)
		}

		dy, dw, db := numbers(r, len(want)), numbers(r, len(w)), numbers(r, g.F)
		wantDW, wantDB, wantDX := slices.Clone(dw), slices.Clone(db), make([]float32, len(x))
		for i, v := range dy {
			f, ox, oy, rec := i%g.F, i/g.F%outW*g.Pool, i/g.F/outW%outH*g.Pool, i/g.F/outW/outH
			oy, ox = oy+int(places[i])/g.Pool, ox+int(places[i])%g.Pool
			wantDB[f] += v
			for k := range g.weights() {
				iy := oy*g.stride() - g.Pad.Top + k/(g.K*g.C)
				ix := ox*g.stride() - g.Pad.Left + k/g.C%g.K
				if iy >= 0 && iy < g.H && ix >= 0 && ix < g.W {
					at := ((rec*g.H+iy)*g.W+ix)*g.C + k%g.C
					wantDW[k*g.F+f] += float32(x[at] * v)
					wantDX[at] += float32(w[k*g.F+f] * v)
				}
			}
		}
		for i := range wantDX {
			if g.Rectified && x[i] <= 0 || wantDX[i] == 0 {
				wantDX[i] = 0
			}
		}
		scratch = make([]float32, g.BackwardScratch(true))
		convBackward(g, n, x, w, arg, dy, dw, db, x, scratch)
		same(t, "dw", dw, wantDW)
		same(t, "db", db, wantDB)
		same(t, "dx", x, wantDX)
	}
}

func TestAvgPool(t *testing.T) {
	p := Pool{H: 3, W: 5, C: 1, Size: 2}
	x, y := []float32{1, 2, 0, 4, 9, 3, 6, 1, 1, 9, 9, 9, 9, 9, 9}, make([]float32, 2)
	AvgPool(p, 1, x, y)
	same(t, "y", y, []float32{3, 1.5})
	AvgPoolBackward(p, 1, x, []float32{4, 8}, x, true)
	same(t, "dx", x, []float32{1, 1, 0, 2, 0, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0})
}

// The statistics are those of the definition, also where the mean is far larger
// than the deviation.
func TestNormStatistics(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, center := range []float64{0, 1000} {
		g := Norm{H: 3, W: 4, C: 37, Pool: 1, Epsilon: 1e-3}
		const n = 5
		x := make([]float32, n*g.H*g.W*g.C)
		for i := range x {
			x[i] = float32(center + r.NormFloat64())
		}
		mean, variance := make([]float32, g.C), make([]float32, g.C)
		NormStatistics(g, n, x, mean, variance)
		for c := range g.C {
			var m, v float64
			for i := c; i < len(x); i += g.C {
				m += float64(x[i]) / (n * 12)
			}
			for i := c; i < len(x); i += g.C {
				v += (float64(x[i]) - m) * (float64(x[i]) - m) / (n * 12)
			}
			if math.Abs(float64(mean[c])-m) > 1e-7*math.Max(1, center) || math.Abs(float64(variance[c])-v) > 1e-6*v {
				t.Fatalf("channel %d: mean %v variance %v, want %v and %v", c, mean[c], variance[c], m, v)
			}
		}
	}
}

// Fusing a max-pool to a batch normalisation does not show.
func TestNormFusedEqualsApart(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 200 {
		size := 2 + r.IntN(2)
		g := Norm{H: size + r.IntN(5), W: size + r.IntN(5), C: 1 + r.IntN(20), Pool: size, Epsilon: 1e-3, Rectified: r.IntN(2) > 0}
		n := 1 + r.IntN(3)
		x, gamma, beta := numbers(r, n*g.H*g.W*g.C), numbers(r, g.C), numbers(r, g.C)
		mean, variance := make([]float32, g.C), make([]float32, g.C)
		NormStatistics(g, n, x, mean, variance)
		outH, outW := g.Out()
		out := n * outH * outW * g.C
		y, arg, wantY, wantArg := make([]float32, out), make([]uint8, out), make([]float32, out), make([]uint8, out)
		NormForward(g, n, x, mean, variance, gamma, beta, y, arg, make([]float32, g.Scratch(1, false)))

		apart, p := g, Pool{g.H, g.W, g.C, size}
		apart.Pool = 1
		full := make([]float32, len(x))
		NormForward(apart, n, x, mean, variance, gamma, beta, full, nil, make([]float32, apart.Scratch(1, false)))
		MaxPool(p, n, full, wantY, wantArg)
		same(t, "y", y, wantY)
		if !slices.Equal(arg, wantArg) {
			t.Fatalf("places %v, want %v", arg, wantArg)
		}

		dy := numbers(r, out)
		MaxPoolBackward(p, n, arg, dy, full)
		dgamma, dbeta, wantGamma, wantBeta := numbers(r, g.C), numbers(r, g.C), make([]float32, g.C), make([]float32, g.C)
		dx, wantDX, scratch := slices.Clone(x), make([]float32, len(x)), make([]float32, g.Scratch(1, true))
		NormBackward(apart, n, x, mean, variance, gamma, nil, full, wantGamma, wantBeta, wantDX, scratch)
		NormBackward(g, n, dx, mean, variance, gamma, arg, dy, dgamma, dbeta, dx, scratch)
		near(t, "dgamma", dgamma, wantGamma)
		near(t, "dbeta", dbeta, wantBeta)
		near(t, "dx", dx, wantDX)
	}
}

// near is same for sums whose terms came in another order.
func near(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, w := range want {
		if d := math.Abs(float64(got[i] - w)); d > 1e-4*math.Abs(float64(w))+1e-4 {
			t.Fatalf("%s: value %d is %v, want %v", what, i, got[i], w)
		}
	}
}

// Every form of every set normalises with the bits of the plain functions.
func TestNormForms(t *testing.T) {
	forms := forms(t)
	for i := range points.Count(150) {
		r := rand.New(rand.NewPCG(uint64(i), 17))
		g := Norm{
			H: 1 + r.IntN(9), W: 1 + r.IntN(9), C: []int{1, 7, 8, 16, 24, 32, 37, 160}[r.IntN(8)], Pool: 1 + r.IntN(3),
			Epsilon: 1e-3, ReLU: r.IntN(2) > 0, Rectified: r.IntN(2) > 0,
		}
		g.H, g.W = max(g.H, g.Pool), max(g.W, g.Pool)
		n := 1 + r.IntN(3)
		if i%10 == 0 { // shared out
			n = 1 + 1<<15/(g.H*g.W*g.C)
		}
		outH, outW := g.Out()
		out := n * outH * outW * g.C
		special := i%4 == 1
		x := wide(r, n*g.H*g.W*g.C, special)
		gamma, beta, dy := wide(r, g.C, special), wide(r, g.C, special), wide(r, out, special)
		type result struct {
			mean, variance, y, dgamma, dbeta, dx []float32
			arg                                  []uint8
		}
		run := func(set Set, odd int) (l result) {
			guard := func(n int) []float32 {
				v, alive := guarded(make([]float32, n), odd)
				t.Cleanup(func() {
					if !alive() {
						t.Errorf("%+v: a value outside was written", g)
					}
				})
				return v
			}
			l = result{guard(g.C), guard(g.C), guard(out), guard(g.C), guard(g.C), guard(len(x)), nil}
			arg, alive := guarded(make([]uint8, out), odd)
			l.arg = arg
			scratch := guard(int(g.Scratch(8, true)))
			set.NormStatistics(g, n, x, l.mean, l.variance)
			set.NormForward(g, n, x, l.mean, l.variance, gamma, beta, l.y, l.arg, scratch)
			// In place, as in a program.
			copy(l.dx, x)
			set.NormBackward(g, n, l.dx, l.mean, l.variance, gamma, l.arg, dy, l.dgamma, l.dbeta, l.dx, scratch)
			if !alive() {
				t.Errorf("%+v: a place outside was written", g)
			}
			return l
		}
		want := run(Generic(), 0)
		for name, set := range forms {
			got := run(set, r.IntN(8))
			what := fmt.Sprintf("%s, %+v, %d records: ", name, g, n)
			equal(t, what+"mean", got.mean, want.mean)
			equal(t, what+"variance", got.variance, want.variance)
			equal(t, what+"y", got.y, want.y)
			equal(t, what+"dgamma", got.dgamma, want.dgamma)
			equal(t, what+"dbeta", got.dbeta, want.dbeta)
			equal(t, what+"dx", got.dx, want.dx)
			if g.Pool > 1 && !slices.Equal(got.arg, want.arg) {
				t.Fatalf("%splaces %v, want %v", what, got.arg, want.arg)
			}
		}
	}
}

func TestUpdates(t *testing.T) {
	const tiny = 0x1p-130
	w, m := []float32{1, 2, tiny, 0}, []float32{0.5, 0, 0, 0x1p-126}
	g := []float32{1, -1, 0, tiny}
	SGD(w, g, m, SGDFactors{Rate: 0.25, Momentum: 0.5})
	same(t, "m", m, []float32{0, 0.25, 0, 0})
	same(t, "w", w, []float32{1, 2.25, 0, 0})
	SGD(w, g, nil, SGDFactors{Rate: 0.25})
	same(t, "w without m", w, []float32{0.75, 2.5, 0, 0})
	Decay(w, 0.5)
	same(t, "decayed", w, []float32{0.375, 1.25, 0, 0})
	Blend(w, []float32{1, 1, tiny, 0}, 0.75)
	same(t, "blended", w, []float32{0.53125, 1.1875, 0, 0})
}
