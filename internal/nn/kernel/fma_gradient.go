// SPDX-License-Identifier: Apache-2.0

package kernel

// tap adds what a run of pooled pixels gives to the gradients of nine weights of
// 8*vectors filters, and of their biases: the chain of weight i goes on in
// sum[i*rowSum].
type tap struct {
	// table has for each pixel of x and the one right of it, and the two below,
	// four values; a pooled pixel is two columns of it.
	table    []float32
	rowTable int
	d        []float32
	arg      []uint8
	filters  int // from one pixel of d and arg to the next
	sum      []float32
	rowSum   int
	sumBias  []float32
	pixels   int
	vectors  int
}

// run does all pixels.
func (v vector) run(p *tap) {
	if v {
		convGradient3x3(p)
		return
	}
	p.plain()
}

// plain is run in plain Go.
func (p *tap) plain() {
	for f := range p.vectors * lanes {
		for i := range p.pixels {
			d, a := p.d[i*p.filters+f], int(p.arg[i*p.filters+f])
			p.sumBias[f] = add32(p.sumBias[f], d)
			for k := range 9 {
				s := &p.sum[k*p.rowSum+f]
				*s = fma32(d, p.table[k/3*p.rowTable+(2*i+k%3)*4+a], *s)
			}
		}
	}
}

// method is how the gradient of the weights is computed. It decides how the
// partial sums are laid out, and whether terms whose gradient is zero are
// included, so it follows from the geometry alone.
type method int

const (
	// methodTables is for windows of 3x3, one apart, with a pool of 2x2. Zeros are
	// included.
	methodTables method = iota
	// methodProducts is for what is not pooled: products of matrices. Zeros are
	// included.
	methodProducts
	// methodScatter is for the rest: each gradient times its window is added to
	// the sums of its filter, which are contiguous. Zeros are left out.
	methodScatter
)

func (g Conv) method() method {
	switch {
	case g.Pool == 1:
		return methodProducts
	case g.K == 3 && g.stride() == 1 && g.pairs():
		return methodTables
	}
	return methodScatter
}

// tableScratch returns the values of a table of neighbours of one channel of a
// record, and of sums that are not needed.
func (g Conv) tableScratch() int {
	if g.method() != methodTables {
		return 0
	}
	h, w := g.Out()
	return (2*h+1)*(2*w+1)*4 + g.F
}

// weightGradients adds to the partial sums. Segments are shared out, or if they
// are few, filters.
func (c *convWork) weightGradients(part, parts int) {
	defer c.v.leave(c.v.enter())
	g := c.g
	sets := (g.F + panel - 1) / panel
	first, last := share(g.segments()*sets, part, parts)
	if first == last {
		return
	}
	scratch := c.scratch[part*(g.frameScratch()+g.tableScratch()):]
	half, _ := g.segment(first / sets)
	_, end := g.segment((last - 1) / sets)
	top, bottom := half/2*g.Pool, (end+1)/2*g.Pool // rows of the convolution
	for r := range c.n {
		x := c.record(r, top, bottom, scratch)
		switch g.method() {
		case methodTables:
			c.tables(x, r, first, last, top, bottom+1, scratch[g.frameScratch():])
		case methodProducts:
			c.products(x, r, first, last)
		case methodScatter:
			c.scatter(x, r, first, last)
		}
	}
}

// piece returns the segment, the filters and the partial sums of piece i.
func (c *convWork) piece(i int) (segment, from, to int, sums []float32) {
	g := c.g
	sets := (g.F + panel - 1) / panel
	segment, from = i/sets, i%sets*panel
	return segment, from, min(from+panel, g.F), c.grad.Partial[segment*g.parameters():][:g.parameters()]
}

// gradient returns where row and column of record r are in dy and arg.
func (c *convWork) gradient(r, row, col int) int {
	return ((r*c.outH+row)*c.outW + col) * c.g.F
}

// tables does the pieces [first, last) of record r, which is x with its padding.
// Tables are made for the rows [top, bottom).
func (c *convWork) tables(x []float32, r, first, last, top, bottom int, scratch []float32) {
	g := c.g
	scratch = scratch[:g.tableScratch()]
	columns := 2*c.outW + 1
	table, unused := scratch[:len(scratch)-g.F], scratch[len(scratch)-g.F:]
	p := tap{rowTable: columns * 4, filters: g.F, rowSum: g.C * g.F}
	for ch := range g.C {
		for y := top; y < bottom; y++ {
			c.v.neighbours(table[(y-top)*columns*4:], x[y*c.wide+ch:], g.C, c.wide, columns)
		}
		for i := first; i < last; {
			segment, from, to, sums := c.piece(i)
			for i++; i < last && to < g.F; i++ { // all its filters at once
				to = min(to+panel, g.F)
			}
			p.sum, p.vectors = sums[ch*g.F+from:], (to-from)/lanes
			p.sumBias = unused
			if ch == 0 {
				p.sumBias = sums[g.weights()*g.F+from:]
			}
			for at, end := g.segment(segment); at < end; {
				var run run
				run, at = nextRun(at, end, c.outW)
				if p.pixels = run.to - run.from; p.pixels == 0 {
					continue
				}
				p.table = table[((2*run.row-top)*columns+2*run.from)*4:]
				d := c.gradient(r, run.row, run.from) + from
				p.d, p.arg = c.dy[d:], c.arg[d:]
				c.v.run(&p)
			}
		}
	}
}

// neighbours writes n tables of four values: pixel i, the one right of it, and
// those below.
func (v vector) neighbours(dst, src []float32, step, row, n int) {
	if v {
		_, _ = dst[4*n-1], src[row+n*step]
		neighbours(&dst[0], &src[0], step, row, n)
		return
	}
	for i := range n {
		at := i * step
		dst[4*i], dst[4*i+1] = src[at], src[at+step]
		dst[4*i+2], dst[4*i+3] = src[at+row], src[at+row+step]
	}
}

var one = []float32{1}

func (c *convWork) products(x []float32, r, first, last int) {
	g, s := c.g, c.g.stride()
	for i := first; i < last; i++ {
		segment, from, to, sums := c.piece(i)
		for at, end := g.segment(segment); at < end; {
			run, after := nextRun(at, end, c.outW)
			rows := 1
			for run.to-run.from == c.outW && after < end { // more whole rows
				next, then := nextRun(after, end, c.outW)
				if next.to-next.from < c.outW {
					break
				}
				rows, after = rows+1, then
			}
			at = after
			if run.from == run.to {
				continue
			}
			p := product{
				segments: rows, steps: run.to - run.from,
				b: c.dy[c.gradient(r, run.row, run.from)+from:], stepB: g.F, skipB: (c.outW - run.to + run.from) * g.F,
				rowFrom: g.F, rowC: g.F,
			}
			p.rowA, p.stepA, p.segA = 1, s*g.C, s*c.wide
			for ky := range g.K {
				p.a, p.c = x[(run.row*s+ky)*c.wide+run.from*s*g.C:], sums[ky*g.K*g.C*g.F+from:]
				p.from = p.c
				c.v.compute(p, g.K*g.C, to-from)
			}
			p.rowA, p.stepA, p.segA = 0, 0, 0
			p.a, p.c = one, sums[g.weights()*g.F+from:]
			p.from = p.c
			c.v.compute(p, 1, to-from)
		}
	}
}

// none says that a gradient counts as zero.
func none(d float32) bool { return d < minNormal && d > -minNormal }

func (c *convWork) scatter(x []float32, r, first, last int) {
	g, taps := c.g, c.g.weights()
	for i := first; i < last; i++ {
		segment, from, to, sums := c.piece(i)
		for at, end := g.segment(segment); at < end; {
			var run run
			run, at = nextRun(at, end, c.outW)
			for col := run.from; col < run.to; col++ {
				place := c.gradient(r, run.row, col)
				for f := from; f < to; f++ {
					d := c.dy[place+f]
					if none(d) {
						continue
					}
					b := &sums[taps*g.F+f]
					*b = add32(*b, d)
					c.v.addScaled(sums[f*taps:], g.K*g.C, x[c.corner(run.row, col, place+f):], c.wide, g.K, g.K*g.C, d)
				}
			}
		}
	}
}

// corner returns where in a record with its padding the window starts that output
// row, col got its value from; at is its place in arg.
func (c *convWork) corner(row, col, at int) int {
	g := c.g
	row, col = row*g.Pool, col*g.Pool
	if g.Pool > 1 {
		a := int(c.arg[at])
		row, col = row+a/g.Pool, col+a%g.Pool
	}
	return (row*c.wide + col*g.C) * g.stride()
}

// gather adds up the partial sums, and leaves the gradient.
func (c *convWork) gather() {
	defer c.v.leave(c.v.enter())
	g, size, taps := c.g, c.g.parameters(), c.g.weights()
	sum := c.grad.Partial[:size]
	for i := 1; i < g.segments(); i++ {
		c.v.add(sum, c.grad.Partial[i*size:][:size])
	}
	if g.method() == methodScatter {
		c.v.transposed(c.grad.W, g.F, sum, taps, g.F, taps)
	} else {
		copy(c.grad.W[:taps*g.F], sum)
	}
	copy(c.grad.Bias[:g.F], sum[taps*g.F:])
}
