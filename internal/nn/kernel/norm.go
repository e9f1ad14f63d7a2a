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

// ForwardScratch returns the float32 values of scratch that NormForward needs.
func (g Norm) ForwardScratch() int64 {
	n := int64(g.C)
	if g.Pool > 1 {
		_, w := g.Out()
		n += int64(g.Pool) * int64(g.Pool) * int64(w) * int64(g.C)
	}
	return n
}

// BackwardScratch returns the float32 values of scratch that NormBackward needs.
func (g Norm) BackwardScratch() int64 { return 3 * int64(g.C) }

// normLanes is how many channels are summed at once: those of one cache line.
const normLanes = 16

// NormStatistics writes the mean and the variance [C] of each channel of
// x [n, H, W, C]. The variance is the mean squared distance from the mean,
// found in a second pass, without Bessel's correction.
func NormStatistics(g Norm, n int, x, mean, variance []float32) {
	x = x[:n*g.H*g.W*g.C]
	count := float64(n * g.H * g.W)
	for c := 0; c < g.C; c += normLanes {
		var sum, square [normLanes]float64
		wide := min(normLanes, g.C-c)
		for i := c; i < len(x); i += g.C {
			for j, v := range x[i:][:wide] {
				sum[j] += float64(v)
			}
		}
		for j := range sum {
			sum[j] /= count
		}
		for i := c; i < len(x); i += g.C {
			for j, v := range x[i:][:wide] {
				d := float64(v) - sum[j]
				square[j] += float64(d * d)
			}
		}
		for j := range wide {
			mean[c+j], variance[c+j] = flush(float32(sum[j])), flush(float32(square[j]/count))
		}
	}
}

// inverse returns one over the standard deviation.
func (g Norm) inverse(variance float32) float64 {
	return 1 / math.Sqrt(float64(variance)+g.Epsilon)
}

// NormForward writes y [n, outH, outW, C], (x - mean) * scale + beta with scale =
// gamma / sqrt(variance + Epsilon), pooled and rectified as g says, from
// x [n, H, W, C] and one value per channel of the others. If g.Pool > 1 it also
// writes arg, each maximum's row-major place in its window, the first of equals;
// if not, y may be x.
func NormForward(g Norm, n int, x, mean, variance, gamma, beta, y []float32, arg []uint8, scratch []float32) {
	scale := scratch[:g.C]
	for c := range scale {
		scale[c] = flush(float32(float64(gamma[c]) * g.inverse(variance[c])))
	}
	mean, beta = mean[:g.C], beta[:g.C]
	outH, outW := g.Out()
	row, wide := g.W*g.C, outW*g.Pool*g.C // values of a row of x, and those that count
	for r := range n {
		for oy := range outH {
			to := y[(r*outH+oy)*outW*g.C:][:outW*g.C]
			rows := to
			if g.Pool > 1 {
				rows = scratch[g.C:][:g.Pool*wide]
			}
			for i := range g.Pool {
				from := x[(r*g.H+oy*g.Pool+i)*row:][:wide]
				for at := 0; at < wide; at += g.C {
					y := rows[i*wide+at:][:g.C]
					for c, v := range from[at:][:g.C] {
						y[c] = float32((v-mean[c])*scale[c]) + beta[c]
					}
				}
			}
			if g.Pool > 1 {
				at := (r*outH + oy) * outW * g.C
				poolRow(Pool{g.Pool, outW * g.Pool, g.C, g.Pool}, rows, to, arg[at:][:len(to)])
			}
			if g.ReLU {
				ReLU(to)
			} else {
				flushAll(to)
			}
		}
	}
}

// NormBackward adds the gradients of gamma and beta [C] to dgamma and dbeta,
// given dy, the gradient of the pooled but not yet rectified output, and the
// mean and variance of this very x. Then it writes dx [n, H, W, C], the gradient
// of x, also through its statistics, unless dx is nil. dx may be x.
func NormBackward(g Norm, n int, x, mean, variance, gamma []float32, arg []uint8, dy, dgamma, dbeta, dx, scratch []float32) {
	// dx = scale * (dy - shift - (x - mean) * slope)
	scale, shift, slope := scratch[:g.C], scratch[g.C:][:g.C], scratch[2*g.C:][:g.C]
	count := float64(n * g.H * g.W)
	for c := 0; c < g.C; c += normLanes {
		var sum, product [normLanes]float64 // of dy, of dy * (x - mean)
		wide := min(normLanes, g.C-c)
		normSums(g, n, c, wide, x, mean, arg, dy, &sum, &product)
		for j := range wide {
			inverse := g.inverse(variance[c+j])
			dgamma[c+j] += float32(product[j] * inverse)
			dbeta[c+j] += float32(sum[j])
			scale[c+j] = flush(float32(float64(gamma[c+j]) * inverse))
			shift[c+j] = flush(float32(sum[j] / count))
			slope[c+j] = flush(float32(float64(product[j]*inverse) * inverse / count))
		}
	}
	if dx == nil {
		return
	}
	mean = mean[:g.C]
	outH, outW := g.Out()
	for r := range n {
		for y := range g.H {
			for col := range g.W {
				at := ((r*g.H+y)*g.W + col) * g.C
				x, dx := x[at:][:g.C], dx[at:][:g.C]
				var d []float32
				var a []uint8
				if oy, ox := y/g.Pool, col/g.Pool; oy < outH && ox < outW {
					at := ((r*outH+oy)*outW + ox) * g.C
					d = dy[at:][:g.C]
					if g.Pool > 1 {
						a = arg[at:][:g.C]
					}
				}
				place := uint8(y%g.Pool*g.Pool + col%g.Pool)
				for c, u := range x {
					var v float32
					if d != nil && (a == nil || a[c] == place) {
						v = d[c]
					}
					v = float32((v - shift[c] - float32((u-mean[c])*slope[c])) * scale[c])
					if g.Rectified && !(u > 0) {
						v = 0
					}
					dx[c] = flush(v)
				}
			}
		}
	}
}

// normSums adds up, for wide channels from c on, the gradients dy and their
// products with x - mean. Of a pooled input only the maxima have a gradient.
func normSums(g Norm, n, c, wide int, x, mean []float32, arg []uint8, dy []float32, sum, product *[normLanes]float64) {
	outH, outW := g.Out()
	var center [normLanes]float64
	for j := range wide {
		center[j] = float64(mean[c+j])
	}
	for r := range n {
		for oy := range outH {
			for ox := range outW {
				at := ((r*outH+oy)*outW+ox)*g.C + c
				from := ((r*g.H+oy*g.Pool)*g.W+ox*g.Pool)*g.C + c
				for j, v := range dy[at:][:wide] {
					i := from + j
					if g.Pool > 1 {
						a := int(arg[at+j])
						i += (a/g.Pool*g.W + a%g.Pool) * g.C
					}
					d := float64(v)
					sum[j] += d
					product[j] += float64(d * (float64(x[i]) - center[j]))
				}
			}
		}
	}
}
