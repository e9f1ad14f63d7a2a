// SPDX-License-Identifier: Apache-2.0

package kernel

// pooling makes a row of pooled pixels, or what one call does of it: a
// convolution with its 2x2 max-pool.
type pooling struct {
	x           []float32 // from the first pixel's window on
	rowX, skipX int       // from a window to the one below; from the end of a window's row to its next
	step        int       // from a window to the one to its right
	rows, steps int       // of the window, and values of a row of it
	w           []float32 // from the first filter on
	rowW        int
	bias        []float32
	y           []float32
	arg         []uint8
	filters     int // from one pixel of y and arg to the next
	pixels      int // in rounds of the assembly's loop
	open        int32
}

// row makes the given pixels for a number of filters that is a multiple of 8.
// Chains start from the bias; see ConvForward for the rest.
func (v vector) row(p pooling, pixels, filters int) {
	all := p
	for f := 0; f < filters; {
		p.w, p.bias = all.w[f:], all.bias[f:]
		p.x, p.y, p.arg = all.x, all.y[f:], all.arg[f:]
		p.pixels = pixels
		switch {
		case !bool(v):
			p.plain(lanes)
			f += lanes
		case filters-f >= panel:
			convPool1x16(&p)
			f += panel
		default:
			if p.pixels = pixels / 2; p.pixels > 0 {
				convPool2x8(&p)
			}
			if pixels%2 != 0 {
				done := pixels - 1
				p.x, p.y, p.arg, p.pixels = p.x[2*done*p.step:], p.y[done*p.filters:], p.arg[done*p.filters:], 1
				convPool1x8(&p)
			}
			f += lanes
		}
	}
}

// plain is row for a number of filters in plain Go.
func (p *pooling) plain(filters int) {
	for i := range p.pixels {
		for f := range filters {
			var best float32
			for place := range 4 {
				s, w := p.bias[f], f
				at := place/2*p.rowX + (2*i+place%2)*p.step
				for range p.rows {
					for k := range p.steps {
						s = fma32(p.x[at+k], p.w[w], s)
						w += p.rowW
					}
					at += p.steps + p.skipX
				}
				if place == 0 || s > best || s != s {
					best = s
					p.arg[i*p.filters+f] = uint8(place)
				}
			}
			if p.open == 0 && best < minNormal {
				best = 0
			}
			p.y[i*p.filters+f] = best
		}
	}
}

// convWork is one pass of a convolution.
type convWork struct {
	v          vector
	g          Conv
	n          int
	outH, outW int
	wide       int // values of a row of a record with its padding
	x, w, bias []float32
	y          []float32
	arg        []uint8
	dy, dx     []float32
	grad       Gradient
	scratch    []float32
}

// fmaScratch returns the float32 values of scratch that both passes need.
func (g Conv) fmaScratch(threads int, train, dx bool) int64 {
	n := threads * (g.frameScratch() + g.rowScratch())
	if train {
		n = max(n, threads*(g.frameScratch()+g.tableScratch()))
		if dx {
			n = max(n, g.weights()*g.F+threads*g.gradientScratch())
		}
	}
	return int64(n)
}

// padded returns the size of a record with its padding.
func (g Conv) padded() (h, w int) {
	return g.H + g.Pad.Top + g.Pad.Bottom, g.W + g.Pad.Left + g.Pad.Right
}

// frameScratch returns the values of one record with its padding, if it has any.
func (g Conv) frameScratch() int {
	if g.Pad == (Pad{}) {
		return 0
	}
	h, w := g.padded()
	return h * w * g.C
}

// pairs says that convolution and pooling are done in registers.
func (g Conv) pairs() bool { return g.Pool == 2 && g.F%lanes == 0 }

// rowScratch returns the values of the rows that one pooled row is made from, if
// they do not stay in registers.
func (g Conv) rowScratch() int {
	if g.Pool == 1 || g.pairs() {
		return 0
	}
	_, w := g.Out()
	return g.Pool * g.Pool * w * g.F
}

// small says that a pass is not worth more than one thread.
func (c *convWork) small() bool {
	return c.n*c.outH*c.outW*c.g.Pool*c.g.Pool*c.g.parameters() < 1<<16
}

func (c *convWork) forward(part, parts int) {
	defer c.v.leave(c.v.enter())
	g := c.g
	scratch := c.scratch[part*(g.frameScratch()+g.rowScratch()):]
	i, last := share(c.n*c.outH, part, parts)
	for i < last {
		r, row := i/c.outH, i%c.outH
		end := min(c.outH, row+last-i)
		x := c.record(r, row*g.Pool, end*g.Pool, scratch)
		for ; row < end; row++ {
			c.row(x, r, row, scratch[g.frameScratch():])
			i++
		}
	}
}

// record returns record r with its padding, as far as the rows [from, to) of the
// convolution, before pooling, need it; frame is where it is made if it has to be.
func (c *convWork) record(r, from, to int, frame []float32) []float32 {
	g := c.g
	in := g.H * g.W * g.C
	x := c.x[r*in:][:in]
	if g.Pad == (Pad{}) {
		return x
	}
	frame = frame[:g.frameScratch()]
	surround(frame, x, g.H, g.W*g.C, c.wide, g.Pad.Top, g.Pad.Left*g.C, from*g.stride(), (to-1)*g.stride()+g.K)
	return frame
}

// surround writes the rows [from, to) of dst, which are wide values each: the given
// number of rows of src, of cols values each, from the row top and the value left on,
// with zeros around them.
func surround(dst, src []float32, rows, cols, wide, top, left, from, to int) {
	for y := from; y < to; y++ {
		row := dst[y*wide:][:wide]
		if y < top || y >= top+rows {
			clear(row)
			continue
		}
		clear(row[:left])
		copy(row[left:][:cols], src[(y-top)*cols:])
		clear(row[left+cols:])
	}
}

// row makes one row of the output of record r, which is x with its padding; rows is
// scratch.
func (c *convWork) row(x []float32, r, row int, rows []float32) {
	g, s := c.g, c.g.stride()
	x = x[row*g.Pool*s*c.wide:]
	at, size := (r*c.outH+row)*c.outW*g.F, c.outW*g.F
	y := c.y[at:][:size]
	if g.pairs() {
		p := pooling{
			x: x, rowX: s * c.wide, skipX: c.wide - g.K*g.C, step: s * g.C, rows: g.K, steps: g.K * g.C,
			w: c.w, rowW: g.F, bias: c.bias, y: y, arg: c.arg[at:][:size], filters: g.F,
		}
		if !g.ReLU {
			p.open = -1
		}
		c.v.row(p, c.outW, g.F)
		return
	}
	p := product{
		rowA: s * g.C, stepA: 1, segA: c.wide, segments: g.K, steps: g.K * g.C,
		b: c.w, stepB: g.F, from: c.bias, rowC: g.F,
	}
	if g.Pool == 1 {
		p.a, p.c = x, y
		c.v.compute(p, c.outW, g.F)
	} else {
		width := c.outW * g.Pool // columns of the convolution that pooling uses
		rows = rows[:g.rowScratch()]
		for i := range g.Pool {
			p.a, p.c = x[i*s*c.wide:], rows[i*width*g.F:]
			c.v.compute(p, width, g.F)
		}
		poolRow(Pool{g.Pool, width, g.F, g.Pool}, rows, y, c.arg[at:][:size])
	}
	if g.ReLU {
		c.v.rectify(y)
	}
}
