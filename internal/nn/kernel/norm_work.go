// SPDX-License-Identifier: Apache-2.0

package kernel

import "math"

// normWork is one pass of a batch normalisation. Its parts are groups of channels
// where sums are made, and rows of the output or records elsewhere. Plain Go and
// assembly have the same bits, so they may meet in one pass: assembly does whole
// groups of channels.
type normWork struct {
	v                    vector
	g                    Norm
	n                    int
	outH, outW           int
	x, mean, variance    []float32
	scale, beta, y       []float32
	arg                  []uint8
	gamma, dgamma, dbeta []float32
	dy, dx, shift, slope []float32
	scratch              []float32 // of parts
}

func forwardNorm(v vector, g Norm, n int, x, mean, variance, gamma, beta, y []float32, arg []uint8, scratch []float32) normWork {
	w := normWork{
		v: v, g: g, n: n, x: x[:n*g.H*g.W*g.C], mean: mean[:g.C], beta: beta[:g.C],
		y: y, arg: arg, scale: scratch[:g.C], scratch: scratch[g.C:],
	}
	w.outH, w.outW = g.Out()
	for c := range w.scale {
		w.scale[c] = flush(float32(float64(gamma[c]) * g.inverse(variance[c])))
	}
	return w
}

func backwardNorm(v vector, g Norm, n int, x, mean, variance, gamma []float32, arg []uint8, dy, dgamma, dbeta, dx, scratch []float32) normWork {
	w := normWork{
		v: v, g: g, n: n, x: x[:n*g.H*g.W*g.C], mean: mean[:g.C], variance: variance[:g.C], gamma: gamma[:g.C], arg: arg,
		dy: dy, dgamma: dgamma[:g.C], dbeta: dbeta[:g.C], dx: dx,
		scale: scratch[:g.C], shift: scratch[g.C:][:g.C], slope: scratch[2*g.C:][:g.C], scratch: scratch[3*g.C:],
	}
	w.outH, w.outW = g.Out()
	return w
}

// small says that a pass is not worth more than one thread.
func (w *normWork) small() bool { return len(w.x) < 1<<15 }

const (
	// normGroups is how many groups of channels pass over x together, so that it is
	// read once, and normBlock how many values of it stay in the nearest cache
	// meanwhile.
	normGroups = 8
	normBlock  = 2048
)

type sums [normLanes]float64

// lanes returns how many channels group i has.
func (w *normWork) lanes(i int) int { return min(normLanes, w.g.C-i*normLanes) }

// blocks calls do for blocks of pixels and groups of channels: with the first value
// of a group's first pixel, the pixels, the group and its number among those that
// pass together.
func (w *normWork) blocks(first, last int, do func(at, pixels, group, i int)) {
	pixels, step := len(w.x)/w.g.C, max(1, normBlock/w.g.C)
	for p := 0; p < pixels; p += step {
		for group := first; group < last; group++ {
			do(p*w.g.C+group*normLanes, min(step, pixels-p), group, group-first)
		}
	}
}

func (w *normWork) statistics(part, parts int) {
	g := w.g
	count := float64(w.n * g.H * g.W)
	first, end := share((g.C+normLanes-1)/normLanes, part, parts)
	for ; first < end; first += normGroups {
		last := min(first+normGroups, end)
		var sum, square [normGroups]sums
		w.blocks(first, last, func(at, pixels, group, i int) {
			w.v.normSum(w.x[at:], g.C, pixels, w.lanes(group), &sum[i])
		})
		for i := range sum {
			for j := range sum[i] {
				sum[i][j] /= count
			}
		}
		w.blocks(first, last, func(at, pixels, group, i int) {
			w.v.normSquare(w.x[at:], g.C, pixels, w.lanes(group), &sum[i], &square[i])
		})
		for group := first; group < last; group++ {
			for j := range w.lanes(group) {
				c := group*normLanes + j
				w.mean[c] = flush(float32(sum[group-first][j]))
				w.variance[c] = flush(float32(square[group-first][j] / count))
			}
		}
	}
}

func (v vector) normSum(x []float32, step, pixels, lanes int, sum *sums) {
	if v != plainGo && lanes == normLanes {
		_ = x[(pixels-1)*step+lanes-1]
		normSum(&x[0], step, pixels, &sum[0])
		return
	}
	for i := range pixels {
		for j, u := range x[i*step:][:lanes] {
			sum[j] += float64(u)
		}
	}
}

func (v vector) normSquare(x []float32, step, pixels, lanes int, center, sum *sums) {
	if v != plainGo && lanes == normLanes {
		_ = x[(pixels-1)*step+lanes-1]
		normSquare(&x[0], step, pixels, &center[0], &sum[0])
		return
	}
	for i := range pixels {
		for j, u := range x[i*step:][:lanes] {
			d := float64(u) - center[j]
			sum[j] += float64(d * d)
		}
	}
}

func (w *normWork) forward(part, parts int) {
	g := w.g
	wide, size := w.outW*g.C, g.W*g.C
	mask, least := w.settling()
	first, last := share(w.n*w.outH, part, parts)
	if g.Pool == 1 {
		at, to := first*wide, last*wide
		w.v.normScale(w.y[at:to], w.x[at:to], w.mean, w.scale, w.beta, mask, least)
		return
	}
	rows := w.scratch[part*int(g.rows()):][:g.rows()]
	for i := first; i < last; i++ {
		from := (i/w.outH*g.H + i%w.outH*g.Pool) * size
		// What is pooled is not settled before: the maximum is.
		w.v.normScale(rows, w.x[from:][:len(rows)], w.mean, w.scale, w.beta, allBits, lowest)
		w.v.poolRow(Pool{g.Pool, g.W, g.C, g.Pool}, rows, w.y[i*wide:][:wide], w.arg[i*wide:][:wide], mask, least)
	}
}

// A value is settled: it becomes +0 where it, under a mask, is below a bound. NaN
// stays.
const (
	magnitude = 1<<31 - 1
	allBits   = 1<<32 - 1
)

var lowest = float32(math.Inf(-1))

// settling returns how the output is settled.
func (w *normWork) settling() (mask uint32, least float32) {
	if w.g.ReLU {
		return allBits, minNormal
	}
	return magnitude, minNormal
}

func settle(v float32, mask uint32, least float32) float32 {
	if math.Float32frombits(math.Float32bits(v)&mask) < least {
		return 0
	}
	return v
}

// normScale does whole pixels.
func (v vector) normScale(y, x, mean, scale, beta []float32, mask uint32, least float32) {
	c := len(mean)
	x, scale, beta = x[:len(y)], scale[:c], beta[:c]
	if v != plainGo && c%lanes == 0 && len(y) > 0 {
		normScale(&y[0], &x[0], &mean[0], &scale[0], &beta[0], c, len(y)/c, mask, least)
		return
	}
	for at := 0; at < len(y); at += c {
		y := y[at:][:c]
		for i, u := range x[at:][:c] {
			y[i] = settle(float32((u-mean[i])*scale[i])+beta[i], mask, least)
		}
	}
}

// poolRow pools the first Size rows of x to one row y, and settles it.
func (v vector) poolRow(p Pool, x, y []float32, arg []uint8, mask uint32, least float32) {
	if v != plainGo && p.Size == 2 && p.C%lanes == 0 && len(y) > 0 {
		_, _ = x[p.W*p.C+2*len(y)-1], arg[len(y)-1]
		poolRow2(&y[0], &x[0], p.W*p.C, &arg[0], p.C, len(y)/p.C, mask, least)
		return
	}
	poolRow(p, x, y, arg)
	for i, u := range y {
		y[i] = settle(u, mask, least)
	}
}

// gradients writes those of gamma and beta, and what the gradient of x takes from
// them: dx = scale * (dy - shift - (x - mean) * slope).
func (w *normWork) gradients(part, parts int) {
	g := w.g
	count := float64(w.n * g.H * g.W)
	first, end := share((g.C+normLanes-1)/normLanes, part, parts)
	for ; first < end; first += normGroups {
		last := min(first+normGroups, end)
		var center, sum, product [normGroups]sums // of dy, of dy * (x - mean)
		for group := first; group < last; group++ {
			for j := range w.lanes(group) {
				center[group-first][j] = float64(w.mean[group*normLanes+j])
			}
		}
		if g.Pool == 1 {
			w.blocks(first, last, func(at, pixels, group, i int) {
				w.v.normProduct(w.x[at:], g.C, w.dy[at:], g.C, pixels, w.lanes(group), &center[i], &sum[i], &product[i])
			})
		} else {
			for row := range w.n * w.outH {
				for group := first; group < last; group++ {
					i := group - first
					w.pooledSums(part, row, group, &center[i], &sum[i], &product[i])
				}
			}
		}
		for group := first; group < last; group++ {
			for j := range w.lanes(group) {
				c, sum, product := group*normLanes+j, sum[group-first][j], product[group-first][j]
				inverse := g.inverse(w.variance[c])
				// A sum that starts from +0 is never -0.
				w.dgamma[c], w.dbeta[c] = 0+float32(product*inverse), 0+float32(sum)
				w.scale[c] = flush(float32(float64(w.gamma[c]) * inverse))
				w.shift[c] = flush(float32(sum / count))
				w.slope[c] = flush(float32(float64(product*inverse) * inverse / count))
			}
		}
	}
}

func (v vector) normProduct(x []float32, stepX int, d []float32, stepD, pixels, lanes int, center, sum, product *sums) {
	if v != plainGo && lanes == normLanes {
		_, _ = x[(pixels-1)*stepX+lanes-1], d[(pixels-1)*stepD+lanes-1]
		normProduct(&x[0], stepX, &d[0], stepD, pixels, &center[0], &sum[0], &product[0])
		return
	}
	for i := range pixels {
		x := x[i*stepX:][:lanes]
		for j, u := range d[i*stepD:][:lanes] {
			d := float64(u)
			sum[j] += d
			product[j] += float64(d * (float64(x[j]) - center[j]))
		}
	}
}

// pooledSums adds a row of the output for one group of channels. Only the maxima
// have a gradient.
func (w *normWork) pooledSums(part, row, group int, center, sum, product *sums) {
	g, lanes := w.g, w.lanes(group)
	to := row*w.outW*g.C + group*normLanes
	from := (row/w.outH*g.H+row%w.outH*g.Pool)*g.W*g.C + group*normLanes
	picked := w.scratch[part*int(max(g.rows(), g.picked())):][:g.picked()]
	x, arg, dy := w.x[from:], w.arg[to:], w.dy[to:]
	if w.v != plainGo && g.Pool == 2 && lanes == normLanes {
		_, _ = x[g.W*g.C+(2*w.outW-1)*g.C+lanes-1], arg[(w.outW-1)*g.C+lanes-1]
		pickRow2(&picked[0], &x[0], g.W*g.C, &arg[0], g.C, w.outW)
	} else {
		for i := range w.outW {
			for j, a := range arg[i*g.C:][:lanes] {
				picked[i*normLanes+j] = x[(int(a)/g.Pool*g.W+i*g.Pool+int(a)%g.Pool)*g.C+j]
			}
		}
	}
	w.v.normProduct(picked, normLanes, dy, g.C, w.outW, lanes, center, sum, product)
}

func (w *normWork) inputGradients(part, parts int) {
	g := w.g
	size := g.W * g.C
	first, last := share(w.n*g.H, part, parts)
	if g.Pool == 1 {
		at, to := first*size, last*size
		w.normGradient(w.dx[at:to], w.x[at:to], w.dy[at:to])
		return
	}
	// Rows that are pooled together stay together.
	first, last = share(w.n, part, parts)
	rows := w.scratch[part*int(max(g.rows(), g.picked())):][:g.rows()]
	for r := first; r < last; r++ {
		for y := 0; y < g.H; y += g.Pool {
			height := min(g.Pool, g.H-y)
			at := (r*g.H + y) * size
			if y/g.Pool < w.outH {
				w.unpool(r*w.outH+y/g.Pool, rows)
			} else {
				clear(rows)
			}
			w.normGradient(w.dx[at:][:height*size], w.x[at:], rows)
		}
	}
}

// unpool writes the gradients of the rows of which one row of the output is made.
func (w *normWork) unpool(row int, rows []float32) {
	g := w.g
	size, wide := g.W*g.C, w.outW*g.C
	dy, arg := w.dy[row*wide:][:wide], w.arg[row*wide:][:wide]
	if w.v != plainGo && g.Pool == 2 && g.C%lanes == 0 {
		unpoolRow2(&dy[0], &rows[0], size, &arg[0], g.C, w.outW)
		for i := range g.Pool {
			clear(rows[i*size+g.Pool*wide : (i+1)*size])
		}
		return
	}
	clear(rows)
	for i, d := range dy {
		a := int(arg[i])
		rows[a/g.Pool*size+(i/g.C*g.Pool+a%g.Pool)*g.C+i%g.C] = d
	}
}

// normGradient does whole pixels.
func (w *normWork) normGradient(dx, x, d []float32) {
	c := w.g.C
	x, d = x[:len(dx)], d[:len(dx)]
	if w.v != plainGo && c%lanes == 0 && len(dx) > 0 {
		open := int32(-1)
		if w.g.Rectified {
			open = 0
		}
		normGradient(&dx[0], &x[0], &d[0], &w.mean[0], &w.shift[0], &w.slope[0], &w.scale[0], c, len(dx)/c, open, minNormal)
		return
	}
	for at := 0; at < len(dx); at += c {
		x, d, dx := x[at:][:c], d[at:][:c], dx[at:][:c]
		for i, u := range x {
			v := float32((d[i] - w.shift[i] - float32((u-w.mean[i])*w.slope[i])) * w.scale[i])
			if w.g.Rectified && !(u > 0) {
				v = 0
			}
			dx[i] = flush(v)
		}
	}
}
