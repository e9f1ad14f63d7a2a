// SPDX-License-Identifier: Apache-2.0

package kernel

import "math"

// Norm is the geometry of a batch normalisation over channels, and of what is
// fused to it. Its arithmetic belongs to every set: sums are float64, one chain
// per channel over records, rows and columns in order, without fused
// multiply-adds, and are rounded once; the rest is float32.
type Norm struct {
	H, W, C int // input
	Pool    int // height, width and stride of the max-pool's window, 1 for none
	// Epsilon is added to variances.
	Epsilon float64
	// ReLU says that the output is rectified.
	ReLU bool
	// Rectified says that x came out of a ReLU: its gradient is zero where x is
	// not positive.
	Rectified bool
}

// Out returns the height and width of the output, after pooling.
func (g Norm) Out() (h, w int) { return g.H / g.Pool, g.W / g.Pool }

// Scratch returns the float32 values of scratch that both passes need with at most
// the given number of threads. train says whether the backward pass is wanted.
func (g Norm) Scratch(threads int, train bool) int64 {
	n := int64(g.C) + int64(threads)*g.rows()
	if train {
		n = max(n, 3*int64(g.C)+int64(threads)*max(g.rows(), g.picked()))
	}
	return n
}

// rows returns the values of the rows of x that one row of pooled output is made
// from.
func (g Norm) rows() int64 {
	if g.Pool == 1 {
		return 0
	}
	return int64(g.Pool) * int64(g.W) * int64(g.C)
}

// picked returns the values of the maxima of one row, of the channels that are
// summed at once.
func (g Norm) picked() int64 {
	if g.Pool == 1 {
		return 0
	}
	_, w := g.Out()
	return int64(w) * normLanes
}

// normLanes is how many channels are summed at once: those of one cache line.
const normLanes = 16

// inverse returns one over the standard deviation.
func (g Norm) inverse(variance float32) float64 {
	return 1 / math.Sqrt(float64(variance)+g.Epsilon)
}

// NormStatistics writes the mean and the variance [C] of each channel of
// x [n, H, W, C]. The variance is the mean squared distance from the mean,
// found in a second pass, without Bessel's correction.
func NormStatistics(g Norm, n int, x, mean, variance []float32) {
	w := normWork{g: g, n: n, x: x[:n*g.H*g.W*g.C], mean: mean[:g.C], variance: variance[:g.C]}
	w.statistics(0, 1)
}

// NormForward writes y [n, outH, outW, C], (x - mean) * scale + beta with scale =
// gamma / sqrt(variance + Epsilon), pooled and rectified as g says, from
// x [n, H, W, C] and one value per channel of the others. If g.Pool > 1 it also
// writes arg, each maximum's row-major place in its window, the first of equals;
// if not, y may be x.
func NormForward(g Norm, n int, x, mean, variance, gamma, beta, y []float32, arg []uint8, scratch []float32) {
	w := forwardNorm(plainGo, g, n, x, mean, variance, gamma, beta, y, arg, scratch)
	w.forward(0, 1)
}

// NormBackward writes the gradients of gamma and beta [C], given dy, the gradient
// of the pooled but not yet rectified output, and the mean and variance of this very
// x. Then it writes dx [n, H, W, C], the gradient of x, also through its statistics,
// unless dx is nil. dx may be x.
func NormBackward(g Norm, n int, x, mean, variance, gamma []float32, arg []uint8, dy, dgamma, dbeta, dx, scratch []float32) {
	w := backwardNorm(plainGo, g, n, x, mean, variance, gamma, arg, dy, dgamma, dbeta, dx, scratch)
	w.gradients(0, 1)
	if dx != nil {
		w.inputGradients(0, 1)
	}
}
