// SPDX-License-Identifier: Apache-2.0

package kernel

func convForward(g Conv, n int, x, w, bias, y []float32, arg []uint8, scratch []float32) {
	outH, outW := g.Out()
	in, out := g.H*g.W*g.C, outH*outW*g.F
	row := g.W * g.C      // values of a row of x
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
				// The window of output column c starts c*C values into the row,
				// and each of its rows is contiguous.
				a := factor{data: x[(oy*g.Pool+i)*row:], row: g.C, outer: row, inner: 1}
				accumulate(wide, g.F, g.K, g.K*g.C, a, w, g.F, rows[i*wide*g.F:], g.F)
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

func convBackward(g Conv, n int, x, w []float32, arg []uint8, dy, dw, db, dx, scratch []float32) {
	outH, outW := g.Out()
	in, out, k := g.H*g.W*g.C, outH*outW*g.F, g.weights()
	c := convGradient{
		row: g.W * g.C, step: g.C, rows: g.K, cols: g.K * g.C,
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
				corner := oy*g.Pool*c.row + ox*g.Pool*g.C
				if g.Pool == 1 {
					c.pixel(corner, dy[at:][:g.F], db)
				} else {
					c.pooled(corner, g.Pool, dy[at:][:g.F], arg[at:][:g.F], db)
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
	row, step  int // values of a row and of a pixel of x
	rows, cols int // rows of the window, and values of one of its rows
	x, dx      []float32
	w, dw      []float32 // filters outermost
}

// pixel adds the gradients d of one output pixel; corner is where its window
// starts in x.
func (c *convGradient) pixel(corner int, d, db []float32) {
	for f, v := range d {
		if v != 0 {
			db[f] += v
			c.add(corner, f, v)
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
			c.add(corner+a/pool*c.row+a%pool*c.step, f, v)
		}
	}
}

// add adds the gradient v of filter f's output whose window starts at corner.
func (c *convGradient) add(corner, f int, v float32) {
	size := c.rows * c.cols
	dw := c.dw[f*size:][:size]
	at := corner // of the window's row in x
	for i := 0; i < size; i += c.cols {
		x := c.x[at:][:c.cols]
		dw := dw[i:][:c.cols]
		at += c.row
		for j, u := range x {
			dw[j] += float32(u * v)
		}
	}
	if c.dx == nil {
		return
	}
	w := c.w[f*size:][:size]
	at = corner
	for i := 0; i < size; i += c.cols {
		dx := c.dx[at:][:c.cols]
		w := w[i:][:c.cols]
		at += c.row
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
