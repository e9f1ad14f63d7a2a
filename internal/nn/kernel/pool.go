// SPDX-License-Identifier: Apache-2.0

package kernel

// Pool is the geometry of a max-pool or an average pool that is not fused to
// another operation.
type Pool struct {
	H, W, C int // input
	Size    int // height, width and stride of the window, at most 16
}

// Out returns the height and width of the output.
func (p Pool) Out() (h, w int) { return p.H / p.Size, p.W / p.Size }

// MaxPool writes y [n, H/Size, W/Size, C], the maxima of x [n, H, W, C], and
// arg, each maximum's row-major place in its window, the first of equals; NaN
// is larger than any number. It rounds nothing, so it belongs to every set.
func MaxPool(p Pool, n int, x, y []float32, arg []uint8) {
	outH, outW := p.Out()
	for r := range n {
		for oy := range outH {
			from := (r*p.H + oy*p.Size) * p.W * p.C
			to := (r*outH + oy) * outW * p.C
			poolRow(p, x[from:], y[to:][:outW*p.C], arg[to:][:outW*p.C])
		}
	}
}

// poolRow pools the first Size rows of x to one row y.
func poolRow(p Pool, x, y []float32, arg []uint8) {
	for o := 0; o < len(y); o += p.C {
		best, place := y[o:][:p.C], arg[o:][:p.C]
		at := o * p.Size
		copy(best, x[at:][:p.C])
		clear(place)
		for k := 1; k < p.Size*p.Size; k++ {
			v := x[at+k/p.Size*p.W*p.C+k%p.Size*p.C:][:p.C]
			for f, u := range v {
				if u > best[f] || u != u {
					best[f], place[f] = u, uint8(k)
				}
			}
		}
	}
}

// MaxPoolBackward writes dx [n, H, W, C], the gradient of x, given dy, that of
// the output; x itself is not needed, so its memory may serve as dx. If x came
// out of a ReLU, so did the output, and dy is zero where the maximum is not
// positive.
func MaxPoolBackward(p Pool, n int, arg []uint8, dy, dx []float32) {
	outH, outW := p.Out()
	in := p.H * p.W * p.C
	for r := range n {
		dx := dx[r*in:][:in]
		for i := range dx {
			y, col, c := i/(p.W*p.C), i/p.C%p.W, i%p.C
			oy, ox := y/p.Size, col/p.Size
			var v float32
			if oy < outH && ox < outW {
				at := ((r*outH+oy)*outW+ox)*p.C + c
				if int(arg[at]) == y%p.Size*p.Size+col%p.Size {
					v = dy[at]
				}
			}
			dx[i] = v
		}
	}
}

// AvgPool writes y [n, H/Size, W/Size, C], the means of the windows of
// x [n, H, W, C]: each a sum from zero in row-major order, divided by the number
// of its terms. It belongs to every set.
func AvgPool(p Pool, n int, x, y []float32) {
	outH, outW := p.Out()
	count := float32(p.Size * p.Size)
	for r := range n {
		for oy := range outH {
			for ox := range outW {
				from := ((r*p.H+oy*p.Size)*p.W + ox*p.Size) * p.C
				mean := y[((r*outH+oy)*outW+ox)*p.C:][:p.C]
				clear(mean)
				for k := range p.Size * p.Size {
					addTo(mean, x[from+(k/p.Size*p.W+k%p.Size)*p.C:])
				}
				for c, v := range mean {
					mean[c] = flush(v / count)
				}
			}
		}
	}
}

// AvgPoolBackward writes dx [n, H, W, C], the gradient of x, given dy, that of
// the output. dx may be x. rectified means that x came out of a ReLU: its
// gradient is zero where x is not positive.
func AvgPoolBackward(p Pool, n int, x, dy, dx []float32, rectified bool) {
	outH, outW := p.Out()
	count := float32(p.Size * p.Size)
	for r := range n {
		for y := range p.H {
			for col := range p.W {
				at := ((r*p.H+y)*p.W + col) * p.C
				x, dx := x[at:][:p.C], dx[at:][:p.C]
				if y/p.Size >= outH || col/p.Size >= outW {
					clear(dx)
					continue
				}
				d := dy[((r*outH+y/p.Size)*outW+col/p.Size)*p.C:][:p.C]
				for c, v := range d {
					if rectified && !(x[c] > 0) {
						v = 0
					}
					dx[c] = flush(v / count)
				}
			}
		}
	}
}
