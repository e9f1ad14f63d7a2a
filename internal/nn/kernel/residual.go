// SPDX-License-Identifier: Apache-2.0

package kernel

import "math"

// Residual is the geometry of an addition of an earlier output. All of it belongs to
// every set: each sum has two terms.
type Residual struct {
	H, W, C int // of what is added to
	// From is the shape of the earlier output, H, W and C. It has the rows and
	// columns that are multiples of Stride, and its channels are the first.
	FromH, FromW, FromC int
	Stride              int
	// ReLU says that the sum is rectified.
	ReLU bool
	// Rectified says that the earlier output came out of a ReLU: its gradient is
	// zero where it is not positive.
	Rectified bool
}

// plain says that the shapes are equal.
func (g Residual) plain() bool { return g.Stride == 1 && g.FromC == g.C }

// each calls do for every pixel of what is added to: its place in it, and the place
// of its pixel in the earlier output.
func (g Residual) each(n int, do func(at, from int)) {
	for r := range n {
		for y := range g.H {
			at := (r*g.H + y) * g.W * g.C
			from := (r*g.FromH + y*g.Stride) * g.FromW * g.FromC
			for range g.W {
				do(at, from)
				at, from = at+g.C, from+g.Stride*g.FromC
			}
		}
	}
}

// AddResidual adds the earlier output to y [n, H, W, C], and rectifies the sum as g
// says: what is not a positive normal number becomes +0 then, but for NaN. The two
// may be one.
func AddResidual(g Residual, n int, earlier, y []float32) { plainGo.addResidual(g, n, earlier, y) }

func (v vector) addResidual(g Residual, n int, earlier, y []float32) {
	y = y[:n*g.H*g.W*g.C]
	if g.plain() {
		v.addSettled(y, earlier[:len(y)], g.ReLU)
		return
	}
	g.each(n, func(at, from int) {
		v.addSettled(y[at:][:g.FromC], earlier[from:][:g.FromC], g.ReLU)
		if g.ReLU {
			ReLU(y[at+g.FromC : at+g.C])
		}
	})
}

// addSettled adds u to y, as [AddResidual] does.
func (v vector) addSettled(y, u []float32, rectify bool) {
	i := v.whole(len(y))
	if i > 0 {
		_ = u[i-1]
		bits := uint32(0)
		if rectify {
			bits = signBit
		}
		addSettledFMA(&y[0], &u[0], i, bits)
	}
	addSettled(y[i:], u[i:len(y)], rectify)
}

// addSettled is that in plain Go. Half of all sums are rectified, and nothing foresees which:
// so there are no branches, which would cost five times the time of the rest.
func addSettled(y, u []float32, rectify bool) {
	u = u[:len(y)]
	if rectify {
		for i, v := range u {
			bits := math.Float32bits(y[i] + v)
			// All ones where the sum is no positive normal number, and where it is
			// NaN.
			small := uint32((int64(int32(bits)) - leastNormalBits) >> 63)
			nan := uint32((2*infinityBits - int64(bits<<1)) >> 63)
			y[i] = math.Float32frombits(bits &^ (small &^ nan))
		}
		return
	}
	for i, v := range u {
		bits := math.Float32bits(y[i] + v)
		if bits<<1 < 2*leastNormalBits {
			bits = 0
		}
		y[i] = math.Float32frombits(bits)
	}
}

// leastNormalBits and infinityBits are the bits of minNormal and of infinity.
const (
	signBit         = 1 << 31
	leastNormalBits = 1 << 23
	infinityBits    = 0xff << 23
)

// MaskResidual makes +0 of the gradient dy [n, H, W, C] where g says that the earlier
// output's own gradient is zero. The earlier output is still what it was.
func MaskResidual(g Residual, n int, earlier, dy []float32) { plainGo.maskResidual(g, n, earlier, dy) }

func (v vector) maskResidual(g Residual, n int, earlier, dy []float32) {
	if !g.Rectified {
		return
	}
	dy = dy[:n*g.H*g.W*g.C]
	if g.plain() {
		v.mask(dy, earlier[:len(dy)])
		return
	}
	g.each(n, func(at, from int) { v.mask(dy[at:][:g.FromC], earlier[from:][:g.FromC]) })
}

// mask makes +0 of dy where x, which is not NaN, is not positive.
func (v vector) mask(dy, x []float32) {
	i := v.whole(len(dy))
	if i > 0 {
		_ = x[i-1]
		rectifiedFMA(&dy[0], &dy[0], &x[0], i)
	}
	mask(dy[i:], x[i:len(dy)])
}

func mask(dy, x []float32) {
	x = x[:len(dy)]
	for i, u := range x {
		// All ones where u is not positive.
		closed := uint32((int64(int32(math.Float32bits(u))) - 1) >> 63)
		dy[i] = math.Float32frombits(math.Float32bits(dy[i]) &^ closed)
	}
}

// AddResidualGradient adds dy [n, H, W, C], which has been masked, to the gradient dx
// of the earlier output.
func AddResidualGradient(g Residual, n int, dy, dx []float32) {
	plainGo.addResidualGradient(g, n, dy, dx)
}

func (v vector) addResidualGradient(g Residual, n int, dy, dx []float32) {
	dy = dy[:n*g.H*g.W*g.C]
	if g.plain() {
		v.addSettled(dx[:len(dy)], dy, false)
		return
	}
	g.each(n, func(at, from int) { v.addSettled(dx[from:][:g.FromC], dy[at:][:g.FromC], false) })
}

// CopyGradient writes dx, the gradient of x, given that of a copy of it; rectified as
// in AvgPoolBackward. dx may be x.
func CopyGradient(x, dy, dx []float32, rectified bool) {
	x, dx = x[:len(dy)], dx[:len(dy)]
	for i, v := range dy {
		if rectified && !(x[i] > 0) {
			v = 0
		}
		dx[i] = v
	}
}

// GlobalPool is the geometry of the mean of each channel over a whole map.
type GlobalPool struct {
	H, W, C int
	// Rectified says that x came out of a ReLU: its gradient is zero where x is not
	// positive.
	Rectified bool
}

// GlobalAvg writes y [n, C], the means of x [n, H, W, C]: each a float64 sum from
// zero, row by row, divided by the number of its terms and rounded once. It belongs
// to every set.
func GlobalAvg(g GlobalPool, n int, x, y []float32) {
	pixels := g.H * g.W
	for r := range n {
		x, y := x[r*pixels*g.C:][:pixels*g.C], y[r*g.C:][:g.C]
		for first := 0; first < g.C; first += normLanes {
			var sum sums
			lanes := min(normLanes, g.C-first)
			for at := first; at < len(x); at += g.C {
				for j, u := range x[at:][:lanes] {
					sum[j] += float64(u)
				}
			}
			for j := range lanes {
				y[first+j] = flush(float32(sum[j] / float64(pixels)))
			}
		}
	}
}

// GlobalAvgBackward writes dx [n, H, W, C], the gradient of x, given dy [n, C]. dx may
// be x.
func GlobalAvgBackward(g GlobalPool, n int, x, dy, dx []float32) {
	pixels := g.H * g.W
	count := float32(pixels)
	for r := range n {
		d := dy[r*g.C:][:g.C]
		for p := range pixels {
			at := (r*pixels + p) * g.C
			x, dx := x[at:][:g.C], dx[at:][:g.C]
			for c, v := range d {
				if g.Rectified && !(x[c] > 0) {
					v = 0
				}
				dx[c] = flush(v / count)
			}
		}
	}
}
