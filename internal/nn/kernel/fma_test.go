// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// guarded returns a copy of v that starts odd values after a multiple of eight
// and has canaries on both sides, and a function that says whether they live.
func guarded[T float32 | uint8](v []T, odd int) (inside []T, alive func() bool) {
	const margin = 64
	const canary = 77
	b := make([]T, len(v)+2*margin+8)
	for i := range b {
		b[i] = canary
	}
	at := margin + odd
	inside = b[at : at+len(v) : at+len(v)]
	copy(inside, v)
	return inside, func() bool {
		for i, u := range b {
			if (i < at || i >= at+len(v)) && u != canary {
				return false
			}
		}
		return true
	}
}

// equal fails unless a and b have equal bits; any NaN equals any other.
func equal(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, w := range want {
		if g := got[i]; math.Float32bits(g) != math.Float32bits(w) && (g == g || w == w) {
			t.Fatalf("%s: value %d is %v (%#x), want %v (%#x)", what, i, g, math.Float32bits(g), w, math.Float32bits(w))
		}
	}
}

// layer holds what a pass of a layer reads and writes.
type layer struct {
	x, w, bias, y, dy []float32
	arg               []uint8
	grad              Gradient
	dx, scratch       []float32
}

func (l layer) copy() layer {
	c := l
	for _, p := range []*[]float32{&c.x, &c.w, &c.bias, &c.y, &c.dy, &c.grad.W, &c.grad.Bias, &c.grad.Partial, &c.dx, &c.scratch} {
		*p = slices.Clone(*p)
	}
	c.arg = slices.Clone(c.arg)
	return c
}

// guard moves all slices between canaries.
func (l layer) guard(t *testing.T, odd int) layer {
	c := l
	watch := func(name string, alive func() bool) {
		t.Cleanup(func() {
			if !alive() {
				t.Errorf("%s: a value outside was written", name)
			}
		})
	}
	for name, p := range map[string]*[]float32{
		"x": &c.x, "w": &c.w, "bias": &c.bias, "y": &c.y, "dy": &c.dy, "dw": &c.grad.W, "db": &c.grad.Bias,
		"partial": &c.grad.Partial, "dx": &c.dx, "scratch": &c.scratch,
	} {
		var alive func() bool
		*p, alive = guarded(*p, odd)
		watch(name, alive)
	}
	var alive func() bool
	c.arg, alive = guarded(c.arg, odd)
	watch("arg", alive)
	return c
}

// wide returns values over the whole range of float32, some not finite if
// special is set, and if not rarely large enough to overflow a sum.
func wide(r *rand.Rand, n int, special bool) []float32 {
	v := numbers(r, n)
	for i := range v {
		switch r.IntN(12) {
		case 0:
			v[i] = float32(math.Ldexp(r.NormFloat64(), -126+r.IntN(4)))
		case 1:
			v[i] = float32(math.Ldexp(r.NormFloat64(), -64+r.IntN(4)))
		case 2:
			v[i] = math.Float32frombits(r.Uint32() & (1<<31 | 1<<24 - 1)) // near the smallest normal
		case 3:
			if special && r.IntN(6) == 0 {
				v[i] = []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 3e38, -3e38}[r.IntN(5)]
			}
		}
	}
	return v
}

func newConv(r *rand.Rand, g Conv, n, threads int, special bool) layer {
	h, w := g.Out()
	l := layer{
		x: wide(r, n*g.H*g.W*g.C, special), w: wide(r, g.weights()*g.F, special), bias: wide(r, g.F, special),
		y: make([]float32, n*h*w*g.F), dy: wide(r, n*h*w*g.F, false), arg: make([]uint8, n*h*w*g.F),
		grad: Gradient{
			W: wide(r, g.weights()*g.F, true), Bias: wide(r, g.F, true), Partial: wide(r, int(g.Partials()), true), First: true, Last: true,
		},
		dx: make([]float32, n*g.H*g.W*g.C), scratch: wide(r, int(g.Scratch(threads, true, true)), true),
	}
	for i := range l.dy {
		if r.IntN(3) == 0 {
			l.dy[i] = 0
		}
	}
	return l
}

func (l layer) conv(s Set, g Conv, n int) {
	s.ConvForward(g, n, l.x, l.w, l.bias, l.y, l.arg, l.scratch)
	s.ConvBackward(g, n, l.x, l.w, l.arg, l.dy, l.grad, l.dx, l.scratch)
}

// naiveConv follows the documentation word by word, with fma32 and add32.
func (l layer) naiveConv(g Conv, n int) {
	h, w := g.Out()
	sums := make([]float32, g.Partials())
	st := g.stride()
	// at returns where channel c of a pixel of the padded input lies, if it is not
	// padding.
	at := func(r, y, x, c int) (i int, inside bool) {
		y, x = y-g.Pad.Top, x-g.Pad.Left
		return ((r*g.H+y)*g.W+x)*g.C + c, y >= 0 && y < g.H && x >= 0 && x < g.W
	}
	value := func(r, y, x, c int) float32 {
		if i, inside := at(r, y, x, c); inside {
			return l.x[i]
		}
		return 0
	}
	segment := func(half int) int {
		for i := range g.segments() {
			if from, to := g.segment(i); from <= half && half < to {
				return i
			}
		}
		panic("no segment")
	}
	for r := range n {
		dx := make([]float32, g.H*g.W*g.C)
		for oy := range h {
			for ox := range w {
				half := 2 * oy
				if ox >= w/2 {
					half++
				}
				part := sums[segment(half)*g.parameters():][:g.parameters()]
				for f := range g.F {
					o := ((r*h+oy)*w+ox)*g.F + f
					for place := range g.Pool * g.Pool {
						y, x := oy*g.Pool+place/g.Pool, ox*g.Pool+place%g.Pool
						s := l.bias[f]
						for k := range g.weights() {
							ky, kx, c := k/g.C/g.K, k/g.C%g.K, k%g.C
							s = fma32(value(r, y*st+ky, x*st+kx, c), l.w[k*g.F+f], s)
						}
						if place == 0 || s > l.y[o] || s != s {
							l.y[o] = s
							if g.Pool > 1 {
								l.arg[o] = uint8(place)
							}
						}
					}
					if g.ReLU && l.y[o] < minNormal {
						l.y[o] = 0
					}
					d := l.dy[o]
					if g.method() == methodScatter && normal(d) == 0 {
						continue
					}
					y, x := oy*g.Pool, ox*g.Pool
					if g.Pool > 1 {
						y, x = y+int(l.arg[o])/g.Pool, x+int(l.arg[o])%g.Pool
					}
					for k := range g.weights() {
						ky, kx, c := k/g.C/g.K, k/g.C%g.K, k%g.C
						part[k*g.F+f] = fma32(d, value(r, y*st+ky, x*st+kx, c), part[k*g.F+f])
						if i, inside := at(0, y*st+ky, x*st+kx, c); inside && normal(d) != 0 {
							dx[i] = fma32(d, l.w[k*g.F+f], dx[i])
						}
					}
					part[g.weights()*g.F+f] = add32(part[g.weights()*g.F+f], d)
				}
			}
		}
		if g.turned() {
			l.naiveTurned(g, r, dx)
		}
		for i, v := range dx {
			if g.Rectified && !(l.x[r*len(dx)+i] >= minNormal) {
				v = 0
			}
			l.dx[r*len(dx)+i] = v
		}
	}
	for i := range g.parameters() {
		s := sums[i]
		for j := 1; j < g.segments(); j++ {
			s = add32(s, sums[j*g.parameters()+i])
		}
		if i < g.weights()*g.F {
			l.grad.W[i] = s
		} else {
			l.grad.Bias[i-g.weights()*g.F] = s
		}
	}
}

// naiveTurned writes the gradient of the input of record r where it is a
// convolution of the output's gradient with zeros around it.
func (l layer) naiveTurned(g Conv, r int, dx []float32) {
	h, w := g.Out()
	stride := max(g.Stride, 1)
	for i := range dx {
		y, x, c := i/(g.W*g.C)+g.Pad.Top, i/g.C%g.W+g.Pad.Left, i%g.C
		var s float32
		for row := y - g.K + 1; row <= y; row++ {
			for col := x - g.K + 1; col <= x; col++ {
				if row%stride != 0 || col%stride != 0 {
					continue // no window starts there
				}
				oy, ox := row/stride, col/stride
				for f := range g.F {
					var d float32
					if oy >= 0 && oy < h && ox >= 0 && ox < w {
						d = l.dy[((r*h+oy)*w+ox)*g.F+f]
					}
					s = fma32(d, l.w[(((y-row)*g.K+x-col)*g.C+c)*g.F+f], s)
				}
			}
		}
		dx[i] = s
	}
}

// sameConv compares what a pass of a convolution wrote.
func sameConv(t *testing.T, what string, g Conv, got, want layer) {
	t.Helper()
	equal(t, what+" y", got.y, want.y)
	if g.Pool > 1 {
		for i, a := range want.arg {
			if got.arg[i] != a && want.y[i] == want.y[i] {
				t.Fatalf("%s arg: place %d is %d, want %d", what, i, got.arg[i], a)
			}
		}
	}
	equal(t, what+" dw", got.grad.W, want.grad.W)
	equal(t, what+" db", got.grad.Bias, want.grad.Bias)
	equal(t, what+" dx", got.dx, want.dx)
}

func TestConvOrder(t *testing.T) {
	forms, singles := forms(t), singles(t)
	for i := range cases(150) {
		r := rand.New(rand.NewPCG(uint64(i), 11))
		g := Conv{
			C: 1 + r.IntN(4), K: 1 + r.IntN(4), F: []int{8, 16, 24, 32, 1, 5, 10, 20}[r.IntN(8)], Pool: 1 + r.IntN(3),
			ReLU: r.IntN(2) > 0, Rectified: r.IntN(2) > 0,
		}
		if i%3 == 0 {
			g.K, g.Pool = 3, 2
		}
		if i%7 == 0 {
			g.K, g.C, g.Pool = 5, 1+r.IntN(7), 2
		}
		g.H, g.W = g.K+g.Pool-1+r.IntN(8), g.K+g.Pool-1+r.IntN(8)
		if i%2 == 0 {
			g.Pad = Pad{r.IntN(g.K), r.IntN(g.K), r.IntN(g.K), r.IntN(g.K)}
		}
		if i%5 == 0 {
			g.Stride = 1 + r.IntN(3)
			g.H, g.W = g.H*g.Stride, g.W*g.Stride
		}
		n := 1 + r.IntN(4)
		in := newConv(r, g, n, 8, false)
		want := in.copy()
		want.naiveConv(g, n)
		for name, set := range forms {
			got := in.guard(t, r.IntN(8))
			// Places that a naive pass has chosen, as the gradient depends on them.
			got.conv(set, g, n)
			sameConv(t, fmt.Sprintf("%s, %+v, %d records:", name, g, n), g, got, want)
		}
		// The gradient of x may overwrite x, and records may come in parts.
		h, w := g.Out()
		for name, set := range singles {
			got := in.copy()
			got.dx = got.x
			for from := 0; from < n; from++ {
				got.grad.First, got.grad.Last = from == 0, from == n-1
				x, o := from*g.H*g.W*g.C, from*h*w*g.F
				set.ConvForward(g, 1, got.x[x:], got.w, got.bias, got.y[o:], got.arg[o:], got.scratch)
				set.ConvBackward(g, 1, got.x[x:], got.w, got.arg[o:], got.dy[o:], got.grad, got.dx[x:], got.scratch)
			}
			sameConv(t, fmt.Sprintf("%s in parts, %+v:", name, g), g, got, want)
		}
	}
}

// The gradient of the input of a convolution that is strided and not pooled is made
// phase by phase: some have no window, some no pixel, and pads shift them.
func TestStridedGradientOrder(t *testing.T) {
	forms := forms(t)
	for i := range cases(400) {
		r := rand.New(rand.NewPCG(uint64(i), 29))
		k := 1 + r.IntN(5)
		g := Conv{
			C: []int{1, 3, 8, 16, 17, 32}[r.IntN(6)], K: k, F: 1 + r.IntN(9), Pool: 1, Stride: 2 + r.IntN(5),
			Pad: Pad{r.IntN(k), r.IntN(k), r.IntN(k), r.IntN(k)}, Rectified: r.IntN(2) > 0,
		}
		g.H = max(1, k-g.Pad.Top-g.Pad.Bottom) + r.IntN(10)
		g.W = max(1, k-g.Pad.Left-g.Pad.Right) + r.IntN(10)
		n := 1 + r.IntN(3)
		in := newConv(r, g, n, 8, false)
		want := in.copy()
		want.naiveConv(g, n)
		for name, set := range forms {
			got := in.guard(t, r.IntN(8))
			got.conv(set, g, n)
			sameConv(t, fmt.Sprintf("%s, %+v, %d records:", name, g, n), g, got, want)
			over := in.guard(t, r.IntN(8))
			over.dx = over.x
			over.conv(set, g, n)
			sameConv(t, fmt.Sprintf("%s in place, %+v, %d records:", name, g, n), g, over, want)
		}
	}
}

func newDense(r *rand.Rand, g Dense, n, threads int, special bool) layer {
	return layer{
		x: wide(r, n*g.In, special), w: wide(r, g.In*g.Out, special), bias: wide(r, g.Out, special),
		y: make([]float32, n*g.Out), dy: wide(r, n*g.Out, special),
		grad: Gradient{W: wide(r, g.In*g.Out, true), Bias: wide(r, g.Out, true), First: true, Last: true},
		dx:   make([]float32, n*g.In), scratch: wide(r, int(g.Scratch(n, threads, true)), true),
	}
}

func (l layer) denseOf(s Set, g Dense, n int) {
	s.DenseForward(g, n, l.x, l.w, l.bias, l.y, l.scratch)
	s.DenseBackward(g, n, l.x, l.w, l.dy, l.grad, l.dx, l.scratch)
}

// naiveDense follows the documentation word by word.
func (l layer) naiveDense(g Dense, n int) {
	clear(l.grad.W)
	clear(l.grad.Bias)
	for r := range n {
		for o := range g.Out {
			var y float32
			for i := range groups {
				var s float32
				for k := g.cut(i); k < g.cut(i+1); k++ {
					s = fma32(l.x[r*g.In+k], l.w[k*g.Out+o], s)
				}
				if g.cut(i) == 0 {
					y = s
				} else if g.cut(i) < g.cut(i+1) {
					y = add32(y, s)
				}
			}
			y = add32(y, l.bias[o])
			if g.ReLU && y < minNormal {
				y = 0
			}
			l.y[r*g.Out+o] = y
			d := l.dy[r*g.Out+o]
			l.grad.Bias[o] = add32(l.grad.Bias[o], d)
			for k := range g.In {
				to := &l.grad.W[k*g.Out+o]
				*to = fma32(l.x[r*g.In+k], d, *to)
			}
		}
		for k := range g.In {
			var s float32
			for o := range g.Out {
				s = fma32(l.dy[r*g.Out+o], l.w[k*g.Out+o], s)
			}
			if g.Rectified && !(l.x[r*g.In+k] >= minNormal) {
				s = 0
			}
			l.dx[r*g.In+k] = s
		}
	}
}

func sameDense(t *testing.T, what string, got, want layer) {
	t.Helper()
	equal(t, what+" y", got.y, want.y)
	equal(t, what+" dw", got.grad.W, want.grad.W)
	equal(t, what+" db", got.grad.Bias, want.grad.Bias)
	equal(t, what+" dx", got.dx, want.dx)
}

func TestDenseOrderFMA(t *testing.T) {
	forms, singles := forms(t), singles(t)
	for i := range cases(120) {
		r := rand.New(rand.NewPCG(uint64(i), 13))
		g := Dense{In: 1 + r.IntN(140), Out: 1 + r.IntN(40), ReLU: r.IntN(2) > 0, Rectified: r.IntN(2) > 0}
		if i%3 == 0 {
			g.Rows, g.Cols = 1+r.IntN(5), 1+r.IntN(6)
			g.In = g.Rows * g.Cols * (1 + r.IntN(20))
		}
		n := 1 + r.IntN(40)
		if i == 0 {
			g = Dense{In: 1300, Out: 18}
		}
		in := newDense(r, g, n, 8, i%4 == 1)
		want := in.copy()
		want.naiveDense(g, n)
		for name, set := range forms {
			got := in.guard(t, r.IntN(8))
			got.denseOf(set, g, n)
			sameDense(t, fmt.Sprintf("%s, %+v, %d records:", name, g, n), got, want)
		}
		for name, set := range singles {
			got := in.copy()
			got.dx = got.x
			got.denseOf(set, g, n)
			sameDense(t, fmt.Sprintf("%s in place, %+v:", name, g), got, want)
		}
	}
}
