// SPDX-License-Identifier: Apache-2.0

package kernel

// tap adds what a run of pooled pixels of some records gives to the gradients of nine
// weights of 8*vectors filters, and of their biases: the chain of weight i goes on in
// sum[i*rowSum].
type tap struct {
	// table has for each pixel of x and the one right of it, and the two below,
	// four values; a pooled pixel is two columns of it.
	table                 []float32
	rowTable, recordTable int
	d                     []float32
	arg                   []uint8
	filters               int // from one pixel of d and arg to the next
	recordD               int // from one record of d and arg to the next
	sum                   []float32
	rowSum                int
	sumBias               []float32
	pixels, records       int
	vectors               int
}

// run does all pixels.
func (v vector) run(p *tap) {
	switch v {
	case avx512:
		p.wide()
	case avx2:
		convGradient3x3(p)
	case plainGo:
		p.plain()
	}
}

// plain is run in plain Go.
func (p *tap) plain() {
	for f := range p.vectors * lanes {
		for i := range p.records * p.pixels {
			record, pixel := i/p.pixels, i%p.pixels
			at := record*p.recordD + pixel*p.filters + f
			d, a := p.d[at], int(p.arg[at])
			p.sumBias[f] = add32(p.sumBias[f], d)
			for k := range 9 {
				s := &p.sum[k*p.rowSum+f]
				*s = fma32(d, p.table[record*p.recordTable+k/3*p.rowTable+(2*pixel+k%3)*4+a], *s)
			}
		}
	}
}

// tables are what tap reads: for each pixel the pixel, the one right of it, and those
// below. The tables of records follow each other.
type tables struct {
	dst       []float32
	src       []float32
	step, row int // from a pixel to the one right of it, and to the one below
	record    int // from a record to the next
	// entries of a row, rows of a record
	entries, rows, records int
}

// run makes the tables.
func (t *tables) run(v vector) {
	size := t.entries * t.rows
	_, _ = t.dst[4*t.records*size-1], t.src[(t.records-1)*t.record+t.rows*t.row+t.entries*t.step]
	switch {
	case v == avx512 && t.step <= neighboursStep:
		neighbours512(t)
		return
	case v != plainGo:
		neighbours(t)
		return
	}
	for r := range t.records {
		for i := range size {
			to := t.dst[4*(r*size+i):][:4]
			at := r*t.record + i/t.entries*t.row + i%t.entries*t.step
			to[0], to[1] = t.src[at], t.src[at+t.step]
			to[2], to[3] = t.src[at+t.row], t.src[at+t.row+t.step]
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
	case g.K == 3 && g.stride() == 1 && g.Pool == 2 && g.F%lanes == 0:
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
	if g.method() == methodScatter && g.Pool == 2 && g.Pad == (Pad{}) {
		c.allWindows(first, last)
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
	p := tap{rowTable: columns * 4, filters: g.F, rowSum: g.C * g.F, records: 1}
	for ch := range g.C {
		t := tables{dst: table, src: x[top*c.wide+ch:], step: g.C, row: c.wide, entries: columns, rows: bottom - top, records: 1}
		t.run(c.v)
		for i := first; i < last; {
			segment, from, to, sums := c.piece(i)
			for i++; i < last && to < g.F; i++ { // all its filters at once
				to = min(to+panel, g.F)
			}
			p.of(g, ch, from, to, sums, unused)
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

// of says which sums the chains go on in: of the filters [from, to) and channel ch.
// What the bias would get once more goes to unused.
func (p *tap) of(g Conv, ch, from, to int, sums, unused []float32) {
	p.sum, p.vectors = sums[ch*g.F+from:], (to-from)/lanes
	p.sumBias = unused
	if ch == 0 {
		p.sumBias = sums[g.weights()*g.F+from:]
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
			c.product(x[(run.row*c.wide+run.from*g.C)*s:], c.wide, c.dy[c.gradient(r, run.row, run.from):], rows, run.to-run.from, from, to, sums)
		}
	}
}

// product adds to the sums of the filters [from, to) what some pixels of some rows
// give, whose first window is at x and whose gradients start at d.
func (c *convWork) product(x []float32, wide int, d []float32, rows, pixels, from, to int, sums []float32) {
	g, s := c.g, c.g.stride()
	p := product{
		segments: rows, steps: pixels,
		b: d[from:], stepB: g.F, skipB: (c.outW - pixels) * g.F,
		rowFrom: g.F, rowC: g.F,
	}
	p.rowA, p.stepA, p.segA = 1, s*g.C, s*wide
	for ky := range g.K {
		p.a, p.c = x[ky*wide:], sums[ky*g.K*g.C*g.F+from:]
		p.from = p.c
		c.v.compute(p, g.K*g.C, to-from)
	}
	p.rowA, p.stepA, p.segA = 0, 0, 0
	p.a, p.c = one, sums[g.weights()*g.F+from:]
	p.from = p.c
	c.v.compute(p, 1, to-from)
}

// none says that a gradient counts as zero.
func none(d float32) bool { return d < minNormal && d > -minNormal }

func (c *convWork) scatter(x []float32, r, first, last int) {
	g, s := c.g, c.g.stride()
	for i := first; i < last; i++ {
		segment, from, to, sums := c.piece(i)
		for at, end := g.segment(segment); at < end; {
			var run run
			run, at = nextRun(at, end, c.outW)
			if run.from == run.to {
				continue
			}
			d := c.gradient(r, run.row, run.from)
			c.scatterRun(x[(run.row*c.wide+run.from*g.C)*g.Pool*s:], c.wide, c.dy[d:], c.places(d), run.to-run.from, from, to, sums)
		}
	}
}

// scatterRun adds to the sums of the filters [from, to) what some pooled pixels give,
// whose first window is at x and whose gradients and places start at d and arg.
func (c *convWork) scatterRun(x []float32, wide int, d []float32, arg []uint8, pixels, from, to int, sums []float32) {
	g, taps := c.g, c.g.weights()
	if g.Pool == 2 {
		c.windows(view{data: x, row: wide}, 1, d, arg, 0, pixels, from, to, sums)
		return
	}
	for i := range pixels {
		for f := from; f < to; f++ {
			d := d[i*g.F+f]
			if none(d) {
				continue
			}
			a := int(arg[i*g.F+f])
			row, col := a/g.Pool, i*g.Pool+a%g.Pool
			b := &sums[taps*g.F+f]
			*b = add32(*b, d)
			c.v.addScaled(sums[f*taps:], g.K*g.C, x[(row*wide+col*g.C)*g.stride():], wide, g.K, g.K*g.C, d)
		}
	}
}

// windows is scatterRun for a 2x2 pool, and for some records, which lie recordD values
// apart in d and arg.
func (c *convWork) windows(x view, records int, d []float32, arg []uint8, recordD, pixels, from, to int, sums []float32) {
	g, s, taps := c.g, c.g.stride(), c.g.weights()
	p := window{
		x: x.data, rowX: x.row, step: 2 * s * g.C, recordX: x.record,
		corner:  [4]int{0, s * g.C, s * x.row, s * (x.row + g.C)},
		filters: g.F, recordD: recordD, rows: g.K, cols: g.K * g.C, pixels: pixels, records: records,
	}
	for f := from; f < to; f++ {
		p.d, p.arg, p.sum, p.bias = d[f:], arg[f:], sums[f*taps:][:taps], sums[taps*g.F+f:]
		c.v.window(p)
	}
}

// allWindows does the pieces [first, last) of all records, which have no padding. Where
// a segment is one run, the sums need not be stored between records.
func (c *convWork) allWindows(first, last int) {
	g := c.g
	in := g.H * g.W * g.C
	for i := first; i < last; i++ {
		segment, from, to, sums := c.piece(i)
		start, end := g.segment(segment)
		records := c.n
		if _, after := nextRun(start, end, c.outW); after < end {
			records = 1
		}
		for r := 0; r < c.n; r += records {
			for at := start; at < end; {
				var run run
				run, at = nextRun(at, end, c.outW)
				if run.from == run.to {
					continue
				}
				x := view{data: c.x[r*in+(run.row*c.wide+run.from*g.C)*2*g.stride():], row: c.wide, record: in}
				d := c.gradient(r, run.row, run.from)
				c.windows(x, records, c.dy[d:], c.places(d), c.outH*c.outW*g.F, run.to-run.from, from, to, sums)
			}
		}
	}
}

// places returns arg from i on; nil where nothing is pooled.
func (c *convWork) places(i int) []uint8 {
	if c.g.Pool == 1 {
		return nil
	}
	return c.arg[i:]
}

// corner returns where in a record with its padding the window starts that the pooled
// output row, col got its value from; at is its place in arg.
func (c *convWork) corner(row, col, at int) int {
	g, a := c.g, int(c.arg[at])
	row, col = row*g.Pool+a/g.Pool, col*g.Pool+a%g.Pool
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
