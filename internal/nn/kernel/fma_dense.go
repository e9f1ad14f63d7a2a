// SPDX-License-Identifier: Apache-2.0

package kernel

const (
	// depth is how much of a long sum a product does for all rows before its
	// next part, so that this part of the right factor stays in a near cache.
	depth = 512
	// strip is how many inputs the backward pass does at a time, a multiple of
	// the rows and of the columns of blocks: their values, the gradients of all
	// outputs and their weights stay in a near cache.
	strip = 48
)

// denseWork is one pass of a dense layer.
type denseWork struct {
	v       vector
	g       Dense
	n       int
	x, w    []float32
	bias, y []float32
	dy, dx  []float32
	grad    Gradient
	scratch []float32
}

// fmaScratch returns the float32 values of scratch that both passes need.
func (g Dense) fmaScratch(n, threads int, consumed bool) int64 {
	return int64(max(n*g.Out, threads*g.stripScratch(consumed)))
}

// stripScratch returns the values that a thread needs backward: a panel of weights,
// transposed, and the gradient of a strip's weights if it is kept nowhere else.
func (g Dense) stripScratch(consumed bool) int {
	if consumed {
		return g.Out * (panel + strip)
	}
	return g.Out * panel
}

// small says that a pass is not worth more than one thread.
func (d *denseWork) small() bool { return d.n*d.g.In*d.g.Out < 1<<16 }

func (d *denseWork) forward(part, parts int) {
	defer d.v.leave(d.v.enter())
	g := d.g
	// Records are shared out, or if they are few, panels of units.
	first, last, left, right := 0, d.n, 0, g.Out
	if d.n >= 8*parts {
		first, last = share(d.n, part, parts)
	} else {
		left, right = share((g.Out+panel-1)/panel, part, parts)
		left, right = left*panel, min(right*panel, g.Out)
	}
	if first >= last || left >= right {
		return
	}
	rows, cols := last-first, right-left
	y, bias := d.y[first*g.Out+left:], d.bias[left:right]
	sum := y // of the group
	for i := range groups {
		for k, end := g.cut(i), g.cut(i+1); k < end; k += depth {
			p := product{
				a: d.x[first*g.In+k:], rowA: g.In, stepA: 1, segments: 1, steps: min(depth, end-k),
				b: d.w[k*g.Out+left:], stepB: g.Out, c: sum, rowC: g.Out,
			}
			if k > g.cut(i) {
				p.from, p.rowFrom = sum, g.Out
			}
			d.v.compute(p, rows, cols)
		}
		if g.cut(i) == g.cut(i+1) {
			continue
		}
		if i > 0 && g.cut(i) > 0 {
			for r := range rows {
				d.v.add(y[r*g.Out:][:cols], sum[r*g.Out:][:cols])
			}
		}
		sum = d.scratch[first*g.Out+left:]
	}
	for r := range rows {
		to := y[r*g.Out:][:cols]
		d.v.add(to, bias)
		if g.ReLU {
			d.v.rectify(to)
		}
	}
}

// conclude makes outputs of whole records of what was summed.
func (d *denseWork) conclude(y []float32) {
	for r := 0; r < len(y); r += d.g.Out {
		d.v.add(y[r:][:d.g.Out], d.bias)
	}
	if d.g.ReLU {
		d.v.rectify(y)
	}
}

func (d *denseWork) backward(part, parts int) {
	defer d.v.leave(d.v.enter())
	g := d.g
	if part == 0 {
		d.biases()
	}
	size := g.stripScratch(d.grad.Consumer != nil)
	scratch := d.scratch[part*size:][:size]
	first, last := share((g.In+panel-1)/panel, part, parts)
	first, last = first*panel, min(last*panel, g.In)
	for i := first; i < last; i += strip {
		var dx []float32
		if d.dx != nil {
			dx = d.dx[i:]
		}
		d.strip(d.x[i:], dx, g.In, i, min(strip, last-i), scratch)
	}
}

// biases does the gradient of the bias.
func (d *denseWork) biases() {
	g := d.g
	db := d.grad.Bias[:g.Out]
	if d.grad.First {
		clear(db)
	}
	for r := range d.n {
		d.v.add(db, d.dy[r*g.Out:][:g.Out])
	}
}

// strip does the gradients of the weights of some inputs, of which i is the first, and
// of the inputs themselves unless dx is nil. x and dx start with that input's value;
// records lie row values apart there.
func (d *denseWork) strip(x, dx []float32, row, i, count int, scratch []float32) {
	g, consumer := d.g, d.grad.Consumer
	p := product{
		a: x, rowA: 1, stepA: row, segments: 1, steps: d.n,
		b: d.dy, stepB: g.Out, rowC: g.Out,
	}
	if consumer != nil {
		p.c = scratch[g.Out*panel:][:count*g.Out]
	} else {
		p.c = d.grad.W[i*g.Out:]
	}
	if !d.grad.First {
		p.from, p.rowFrom = p.c, g.Out
	}
	d.v.compute(p, count, g.Out)
	if dx != nil {
		d.inputs(x, dx, row, i, count, scratch[:g.Out*panel])
	}
	if consumer != nil {
		consumer.take(d.v, i*g.Out, p.c)
	}
}

// inputs writes the gradients of inputs as strip says. pack is scratch.
func (d *denseWork) inputs(x, dx []float32, row, i, count int, pack []float32) {
	g := d.g
	p := product{
		a: d.dy, rowA: g.Out, stepA: 1, segments: 1, steps: g.Out,
		b: pack, stepB: panel, rowC: row,
	}
	if g.Rectified {
		p.rectified = 1
	}
	for j := 0; j < count; j += panel {
		cols := min(panel, count-j)
		if g.Rectified && &dx[0] != &x[0] {
			for r := range d.n {
				copy(dx[r*row+j:][:cols], x[r*row+j:])
			}
		}
		d.v.transposed(pack, panel, d.w[(i+j)*g.Out:], g.Out, cols, g.Out)
		p.c = dx[j:]
		d.v.compute(p, d.n, cols)
	}
}
