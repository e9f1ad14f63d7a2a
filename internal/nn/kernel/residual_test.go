// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// An addition with a stride and fewer channels is the plain one of what that selects.
func TestResidualSelects(t *testing.T) {
	const n = 2
	g := Residual{H: 3, W: 2, C: 5, FromH: 5, FromW: 4, FromC: 3, Stride: 2}
	earlier := make([]float32, n*g.FromH*g.FromW*g.FromC)
	for i := range earlier {
		earlier[i] = float32(i%11) - 5
	}
	y := make([]float32, n*g.H*g.W*g.C)
	for i := range y {
		y[i] = float32(i%7) - 3
	}
	selected := make([]float32, len(y))
	for i := range selected {
		r, row, col, c := i/(g.H*g.W*g.C), i/(g.W*g.C)%g.H, i/g.C%g.W, i%g.C
		if c < g.FromC {
			selected[i] = earlier[((r*g.FromH+2*row)*g.FromW+2*col)*g.FromC+c]
		}
	}
	plain := Residual{H: g.H, W: g.W, C: g.C, FromH: g.H, FromW: g.W, FromC: g.C, Stride: 1}
	for _, relu := range []bool{false, true} {
		g.ReLU, plain.ReLU = relu, relu
		got, want := slices.Clone(y), slices.Clone(y)
		AddResidual(g, n, earlier, got)
		AddResidual(plain, n, selected, want)
		if !slices.Equal(got, want) {
			t.Errorf("relu %v: %v, want %v", relu, got, want)
		}
		for i, v := range want {
			sum := y[i] + selected[i]
			if relu {
				sum = max(sum, 0)
			}
			if v != sum {
				t.Fatalf("relu %v: value %d is %v, want %v", relu, i, v, sum)
			}
		}
	}
	// The gradient goes back to where the value came from, if that was positive.
	g.Rectified = true
	dy, dx := slices.Clone(y), make([]float32, len(earlier))
	MaskResidual(g, n, earlier, dy)
	AddResidualGradient(g, n, dy, dx)
	count := 0
	for i, v := range dx {
		row, col, c := i/(g.FromW*g.FromC)%g.FromH, i/g.FromC%g.FromW, i%g.FromC
		var want float32
		if row%2 == 0 && col%2 == 0 && earlier[i] > 0 {
			r := i / (g.FromH * g.FromW * g.FromC)
			want = y[((r*g.H+row/2)*g.W+col/2)*g.C+c]
			count++
		}
		if v != want {
			t.Errorf("gradient %d is %v, want %v", i, v, want)
		}
	}
	if count == 0 {
		t.Error("nothing was positive")
	}
}

// What is not a number comes through, and what is too small does not.
func TestResidualSettles(t *testing.T) {
	nan, tiny := float32(math.NaN()), float32(0x1p-130)
	g := Residual{H: 1, W: 1, C: 4, FromH: 1, FromW: 1, FromC: 4, Stride: 1}
	for _, relu := range []bool{false, true} {
		g.ReLU = relu
		y := []float32{nan, 0x1p-126, 1, -1}
		AddResidual(g, 1, []float32{1, tiny - 0x1p-126, nan, float32(math.Copysign(0, -1))}, y)
		if y[0] == y[0] || math.Float32bits(y[1]) != 0 || y[2] == y[2] || relu != (y[3] == 0) {
			t.Errorf("relu %v: %v", relu, y)
		}
	}
}

// Without branches the sums are what they are with them.
func TestResidualSums(t *testing.T) {
	nan, inf, tiny := math.Float32frombits(0xffc00001), float32(math.Inf(1)), float32(0x1p-130)
	special := []float32{0, float32(math.Copysign(0, -1)), nan, float32(math.NaN()), inf, -inf, tiny, -tiny, 0x1p-126, -0x1p-126, 1, -1, 0x1.8p-126, -0x1.8p-126}
	for _, a := range special {
		for _, b := range special {
			y, r, m := []float32{a}, []float32{a}, []float32{a}
			addSettled(y, []float32{b}, false)
			addSettled(r, []float32{b}, true)
			sum := a + b
			want, rectified := []float32{flush(sum)}, []float32{sum}
			ReLU(rectified)
			if math.Float32bits(y[0]) != math.Float32bits(want[0]) && sum == sum || math.Float32bits(r[0]) != math.Float32bits(rectified[0]) && sum == sum {
				t.Errorf("%v + %v: %v and rectified %v, want %v and %v", a, b, y[0], r[0], want[0], rectified[0])
			}
			if sum != sum && (y[0] == y[0] || r[0] == r[0]) {
				t.Errorf("%v + %v is no longer NaN", a, b)
			}
			if b == b {
				mask(m, []float32{b})
				want := a
				if !(b > 0) {
					want = 0
				}
				if math.Float32bits(m[0]) != math.Float32bits(want) && want == want {
					t.Errorf("%v where %v: %v, want %v", a, b, m[0], want)
				}
			}
		}
	}
}

// Shared out to threads, all passes have the bits that they have on one.
func TestResidualOnThreads(t *testing.T) {
	for _, g := range []Residual{
		{H: 16, W: 16, C: 8, FromH: 16, FromW: 16, FromC: 8, Stride: 1, ReLU: true, Rectified: true},
		{H: 16, W: 16, C: 8, FromH: 31, FromW: 32, FromC: 4, Stride: 2, ReLU: true, Rectified: true},
		{H: 16, W: 16, C: 24, FromH: 32, FromW: 32, FromC: 8, Stride: 2, ReLU: true, Rectified: true},
		{H: 16, W: 16, C: 27, FromH: 32, FromW: 31, FromC: 13, Stride: 2, ReLU: true, Rectified: true},
	} {
		r := rand.New(rand.NewPCG(5, uint64(g.Stride)))
		const n = 5
		earlier, y := wide(r, n*g.FromH*g.FromW*g.FromC, false), wide(r, n*g.H*g.W*g.C, false)
		run := func(s Set) (sum, dx []float32) {
			sum, dx = slices.Clone(y), slices.Clone(earlier)
			s.AddResidual(g, n, earlier, sum)
			dy := slices.Clone(y)
			s.MaskResidual(g, n, earlier, dy)
			s.AddResidualGradient(g, n, dy, dx)
			return sum, dx
		}
		wantSum, wantDX := run(Generic())
		for name, s := range forms(t) {
			sum, dx := run(s)
			equal(t, name+": sum", sum, wantSum)
			equal(t, name+": gradient", dx, wantDX)
		}
	}
}

// A mean is the same whatever is beside it, and its gradient is shared out evenly.
func TestGlobalAvg(t *testing.T) {
	for _, channels := range []int{1, 15, 16, 17, 40} {
		const n = 3
		g := GlobalPool{H: 3, W: 5, C: channels, Rectified: true}
		x := make([]float32, n*15*channels)
		for i := range x {
			x[i] = float32(i*i%97) - 40
		}
		y := make([]float32, n*channels)
		GlobalAvg(g, n, x, y)
		dy := slices.Clone(y)
		dx := slices.Clone(x)
		GlobalAvgBackward(g, n, dx, dy, dx)
		for r := range n {
			for c := range channels {
				sum := 0.0
				for p := range 15 {
					at := (r*15+p)*channels + c
					sum += float64(x[at])
					want := float32(0)
					if x[at] > 0 {
						want = dy[r*channels+c] / 15
					}
					if dx[at] != want {
						t.Fatalf("%d channels: gradient %v, want %v", channels, dx[at], want)
					}
				}
				if got := y[r*channels+c]; got != float32(sum/15) {
					t.Errorf("%d channels: mean %v, want %v", channels, got, sum/15)
				}
			}
		}
	}
}
