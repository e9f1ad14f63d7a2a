// SPDX-License-Identifier: Apache-2.0

package kernel

func convForward(g Conv, n int, x, w, bias, y []float32, arg []uint8, scratch []float32) {
	outH, outW := g.Out()
	in, out := g.H*g.W*g.C, outH*outW*g.F
	wide := outW * g.Pool // columns of the convolution that pooling uses
	for r := range n {
		x, y := x[r*in:][:in], y[r*out:][:out]
		for oy := range outH {
			to := y[oy*outW*g.F:][:outW*g.F]
			rows := to
			if g.Pool > 1 {
				rows = scratch[:g.Pool*wide*g.F]
			}
			for i := 0; i < len(rows); i += g.F {
				copy(rows[i:i+g.F], bias)
			}
			for i := range g.Pool {
				convRow(g, oy*g.Pool+i, wide, x, w, rows[i*wide*g.F:])
			}
			if g.Pool > 1 {
				at := r*out + oy*outW*g.F
				poolRow(Pool{g.Pool, wide, g.F, g.Pool}, rows, to, arg[at:][:len(to)])
			}
			if g.ReLU {
				ReLU(to)
			} else {
				flushAll(to)
			}
		}
	}
}

// convRow adds to y [columns, F] what the input x and the weights w contribute
// to row o of the convolution.
func convRow(g Conv, o, columns int, x, w, y []float32) {
	s, row := g.stride(), g.W*g.C // of x, in values
	top := o*s - g.Pad.Top
	// The window's rows that lie in x, and the columns whose windows lie in x
	// from left to right.
	lo, hi := max(0, -top), min(g.K, g.H-top)
	first := min(columns, (g.Pad.Left+s-1)/s)
	last := first
	if room := g.W - g.K + g.Pad.Left; room >= 0 {
		last = max(first, min(columns, room/s+1))
	}
	if first < last {
		// Windows of neighbouring columns start s*C values apart, and each of
		// their rows is contiguous.
		at := (top+lo)*row + (first*s-g.Pad.Left)*g.C
		a := factor{data: x[at:], row: s * g.C, outer: row, inner: 1}
		accumulate(last-first, g.F, hi-lo, g.K*g.C, a, w[lo*g.K*g.C*g.F:], g.F, y[first*g.F:], g.F)
	}
	// The other windows are cut off at the sides, so the weights that meet x are
	// contiguous in one row of the window only.
	edge := func(c int) {
		left := c*s - g.Pad.Left
		from, to := max(0, -left), min(g.K, g.W-left)
		for k := lo; k < hi; k++ {
			a := factor{data: x[(top+k)*row+(left+from)*g.C:], inner: 1}
			accumulate(1, g.F, 1, (to-from)*g.C, a, w[(k*g.K+from)*g.C*g.F:], g.F, y[c*g.F:], g.F)
		}
	}
	for c := range first {
		edge(c)
	}
	for c := last; c < columns; c++ {
		edge(c)
	}
}

func convBackward(g Conv, n int, x, w []float32, arg []uint8, dy, dw, db, dx, scratch []float32) {
	outH, outW := g.Out()
	in, out, k := g.H*g.W*g.C, outH*outW*g.F, g.weights()
	c := convGradient{
		row: g.W * g.C, rows: g.K, cols: g.K * g.C,
		down: g.stride() * g.W * g.C, right: g.stride() * g.C,
		dw: scratch[:k*g.F],
	}
	// With filters outermost the weights of one filter are contiguous, and one
	// gradient meets them all. Old sums are carried over: a chain continues.
	transpose(c.dw, dw, k, g.F)
	if dx != nil {
		c.w = scratch[k*g.F:][:k*g.F]
		c.dx = scratch[2*k*g.F:][:in]
		transpose(c.w, w, k, g.F)
	}
	for r := range n {
		c.x = x[r*in:][:in]
		clear(c.dx)
		for oy := range outH {
			for ox := range outW {
				at := r*out + (oy*outW+ox)*g.F
				d := dy[at:][:g.F]
				switch {
				case g.Pad != Pad{}:
					c.padded(g, oy*g.Pool, ox*g.Pool, at, d, arg, db)
				case g.Pool == 1:
					c.pixel(oy*c.down+ox*c.right, d, db)
				default:
					c.pooled(oy*g.Pool*c.down+ox*g.Pool*c.right, g.Pool, d, arg[at:][:g.F], db)
				}
			}
		}
		if dx != nil {
			storeGradient(dx[r*in:][:in], c.dx, c.x, g.Rectified)
		}
	}
	transpose(dw, c.dw, g.F, k)
}

// convGradient is what the inner loops of convBackward share, for one record.
type convGradient struct {
	row         int // values of a row of x
	down, right int // values of x from a window to the one below and to the right
	rows, cols  int // rows of the window, and values of one of its rows
	x, dx       []float32
	w, dw       []float32 // filters outermost
}

// pixel adds the gradients d of one output pixel; corner is where its window
// starts in x.
func (c *convGradient) pixel(corner int, d, db []float32) {
	for f, v := range d {
		if v != 0 {
			db[f] += v
			c.add(overlap{corner, 0, c.rows, c.cols}, f, v)
		}
	}
}

// pooled is pixel for a pooled output; arg says where in the pooling window
// that starts at corner each filter's gradient belongs.
func (c *convGradient) pooled(corner, pool int, d []float32, arg []uint8, db []float32) {
	arg = arg[:len(d)]
	for f, v := range d {
		if v != 0 {
			db[f] += v
			a := int(arg[f])
			c.add(overlap{corner + a/pool*c.down + a%pool*c.right, 0, c.rows, c.cols}, f, v)
		}
	}
}

// padded is pixel and pooled where there is padding: of the window of the
// output at oy, ox only the part that lies in x counts. at is where the places
// of the pixel's maxima start in arg.
func (c *convGradient) padded(g Conv, oy, ox, at int, d []float32, arg []uint8, db []float32) {
	for f, v := range d {
		if v == 0 {
			continue
		}
		db[f] += v
		y, x := oy, ox
		if g.Pool > 1 {
			a := int(arg[at+f])
			y, x = y+a/g.Pool, x+a%g.Pool
		}
		top, left := y*g.stride()-g.Pad.Top, x*g.stride()-g.Pad.Left
		lo, hi := max(0, -top), min(g.K, g.H-top)
		from, to := max(0, -left), min(g.K, g.W-left)
		c.add(overlap{(top+lo)*c.row + (left+from)*g.C, lo*c.cols + from*g.C, hi - lo, (to - from) * g.C}, f, v)
	}
}

// overlap is the part of a window that lies in x.
type overlap struct {
	x, w       int // where it starts in x and in the filter's weights
	rows, cols int // its rows, and the values of each
}

// add adds the gradient v of filter f's output, whose window is p.
func (c *convGradient) add(p overlap, f int, v float32) {
	size := c.rows * c.cols
	dw := c.dw[f*size:][:size]
	at, to := p.x, p.w
	for range p.rows {
		x := c.x[at:][:p.cols]
		dw := dw[to:][:p.cols]
		at, to = at+c.row, to+c.cols
		for j, u := range x {
			dw[j] += float32(u * v)
		}
	}
	if c.dx == nil {
		return
	}
	w := c.w[f*size:][:size]
	at, to = p.x, p.w
	for range p.rows {
		dx := c.dx[at:][:p.cols]
		w := w[to:][:p.cols]
		at, to = at+c.row, to+c.cols
		for j, u := range w {
			dx[j] += float32(u * v)
		}
	}
}

// transpose writes dst [cols, rows] from src [rows, cols].
func transpose(dst, src []float32, rows, cols int) {
	for j := range cols {
		to := dst[j*rows:][:rows]
		for i := range to {
			to[i] = src[i*cols+j]
		}
	}
}

// storeGradient writes the gradient d of x to dx, which may be x. rectified
// means that x came out of a ReLU, which passes gradients of positive values
// only.
func storeGradient(dx, d, x []float32, rectified bool) {
	d, x = d[:len(dx)], x[:len(dx)]
	for i, v := range d {
		if rectified && !(x[i] > 0) {
			v = 0
		}
		dx[i] = flush(v)
	}
}
