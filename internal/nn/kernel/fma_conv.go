// SPDX-License-Identifier: Apache-2.0

package kernel

import "math"

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
	// records, and how far apart they lie in x, and in y and arg.
	records, recordX, recordY int
	floor                     float32 // what y is at least: 0, or -Inf where nothing is rectified
	maxima                    bool    // arg is not wanted; it may be written nevertheless
	// With vectors of sixteen: pixels of a round, and vectors of filters.
	each, vectors int
}

// row makes the given pixels of all records, for a number of filters that is a
// multiple of 8 if it is done by assembly.
// Chains start from the bias; see ConvForward for the rest.
func (v vector) row(p pooling, pixels, filters int) {
	all := p
	for f := 0; f < filters; {
		p.w, p.bias = all.w[f:], all.bias[f:]
		p.x, p.y, p.arg = all.x, all.y[f:], all.arg[f:]
		p.pixels = pixels
		switch {
		case v == plainGo:
			p.plain(min(lanes, filters-f))
			f += lanes
		case v == avx512 && filters-f >= lanes512:
			f += p.wide(pixels, filters-f)
		case filters-f >= panel:
			p.one16()
			f += panel
		default:
			if p.pixels = pixels / 2; p.pixels > 0 {
				p.two8()
			}
			if pixels%2 != 0 {
				done := pixels - 1
				p.x, p.y, p.arg, p.pixels = p.x[2*done*p.step:], p.y[done*p.filters:], p.arg[done*p.filters:], 1
				p.one8()
			}
			f += lanes
		}
	}
}

// one16, two8 and one8 are the kernels for a pixel of 16 filters and for two and one of 8.
func (p *pooling) one16() {
	if p.maxima {
		convMax1x16(p)
	} else {
		convPool1x16(p)
	}
}

func (p *pooling) two8() {
	if p.maxima {
		convMax2x8(p)
	} else {
		convPool2x8(p)
	}
}

func (p *pooling) one8() {
	if p.maxima {
		convMax1x8(p)
	} else {
		convPool1x8(p)
	}
}

// plain is row for a number of filters in plain Go.
func (p *pooling) plain(filters int) {
	for i := range p.records * p.pixels {
		record, pixel := i/p.pixels, i%p.pixels
		for f := range filters {
			to := record*p.recordY + pixel*p.filters + f
			var best float32
			for place := range 4 {
				s, w := p.bias[f], f
				at := record*p.recordX + place/2*p.rowX + (2*pixel+place%2)*p.step
				for range p.rows {
					for k := range p.steps {
						s = fma32(p.x[at+k], p.w[w], s)
						w += p.rowW
					}
					at += p.steps + p.skipX
				}
				if place == 0 || s > best || s != s {
					best = s
					p.arg[to] = uint8(place)
				}
			}
			if p.floor == 0 && best < minNormal {
				best = 0
			}
			p.y[to] = best
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
	maxima     bool // of arg nothing is wanted
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

// rowScratch returns the values that a thread needs for a row of pooled pixels.
func (g Conv) rowScratch() int {
	_, w := g.Out()
	return g.runScratch(w)
}

// runScratch returns the values that a thread needs for a number of pooled pixels:
// what they are made from, if that does not stay in registers, or the padding.
func (g Conv) runScratch(pixels int) int {
	switch {
	case g.Pool == 1 || g.Pool == 2 && g.F%lanes == 0:
		return 0
	case g.Pool == 2:
		return (g.weights()+1)*lanes + pixels*(lanes+lanes/4)
	}
	return g.Pool * g.Pool * pixels * g.F
}

// pad prepares a thread's scratch for runs of pixels. The assembly makes 8 filters at
// a time, so the last, if they are fewer, are padded with zeros.
func (c *convWork) pad(scratch []float32) {
	g := c.g
	if g.Pool != 2 || g.F%lanes == 0 || c.v == plainGo {
		return
	}
	taps, from := g.weights(), g.F&^(lanes-1)
	clear(scratch[:(taps+1)*lanes])
	for k := range taps {
		copy(scratch[k*lanes:][:lanes], c.w[k*g.F:][from:g.F])
	}
	copy(scratch[taps*lanes:][:lanes], c.bias[from:])
}

// padded makes the last filters of a run of pixels from their padding.
func (c *convWork) padded(p pooling, pixels int, scratch []float32) {
	taps, from := c.g.weights(), p.filters&^(lanes-1)
	y, arg := scratch[(taps+1)*lanes:][:pixels*lanes], bytesOf(scratch[(taps+1)*lanes+pixels*lanes:][:pixels*lanes/4])
	all := p
	p.w, p.rowW, p.bias, p.y, p.arg, p.filters, p.records = scratch, lanes, scratch[taps*lanes:], y, arg, lanes, 1
	for r := range all.records {
		p.x = all.x[r*all.recordX:]
		c.v.row(p, pixels, lanes)
		for i := range pixels {
			at := r*all.recordY + i*all.filters
			copy(all.y[at+from:at+all.filters], y[i*lanes:])
			copy(all.arg[at+from:at+all.filters], arg[i*lanes:])
		}
	}
}

// small says that a pass is not worth more than one thread.
func (c *convWork) small() bool {
	return c.n*c.outH*c.outW*c.g.Pool*c.g.Pool*c.g.parameters() < 1<<16
}

func (c *convWork) forward(part, parts int) {
	defer c.v.leave(c.v.enter())
	g := c.g
	scratch := c.scratch[part*(g.frameScratch()+g.rowScratch()):]
	c.pad(scratch[g.frameScratch():])
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
	g := c.g
	at := (r*c.outH + row) * c.outW * g.F
	from := view{data: x[row*g.Pool*g.stride()*c.wide:], row: c.wide}
	c.run(from, 1, c.outW, c.y[at:], c.places(at), rows)
}

// run makes neighbouring pixels of the output of some records. y and arg start with
// the first; records follow each other there. rows is scratch.
func (c *convWork) run(x view, records, pixels int, y []float32, arg []uint8, rows []float32) {
	g, s := c.g, c.g.stride()
	size := pixels * g.F
	if g.Pool == 2 {
		p := pooling{
			x: x.data, rowX: s * x.row, skipX: x.row - g.K*g.C, step: s * g.C, rows: g.K, steps: g.K * g.C,
			w: c.w, rowW: g.F, bias: c.bias, y: y[:records*size], arg: arg[:records*size], filters: g.F,
			records: records, recordX: x.record, recordY: size, maxima: c.maxima,
		}
		if !g.ReLU {
			p.floor = float32(math.Inf(-1))
		}
		if whole := c.v.whole(g.F); c.v != plainGo && whole < g.F {
			c.v.row(p, pixels, whole)
			c.padded(p, pixels, rows)
		} else {
			c.v.row(p, pixels, g.F)
		}
		return
	}
	p := product{
		rowA: s * g.C, stepA: 1, segA: x.row, segments: g.K, steps: g.K * g.C,
		b: c.w, stepB: g.F, from: c.bias, rowC: g.F,
	}
	for r := range records {
		x, y := x.data[r*x.record:], y[r*size:][:size]
		if g.Pool == 1 {
			p.a, p.c = x, y
			c.v.compute(p, pixels, g.F)
		} else {
			width := pixels * g.Pool // columns of the convolution that pooling uses
			rows = rows[:g.Pool*width*g.F]
			for i := range g.Pool {
				p.a, p.c = x[i*s*p.segA:], rows[i*width*g.F:]
				c.v.compute(p, width, g.F)
			}
			poolRow(Pool{g.Pool, width, g.F, g.Pool}, rows, y, arg[r*size:][:size])
		}
		if g.ReLU {
			c.v.rectify(y)
		}
	}
}
