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

// scratch returns the float32 values of scratch that both passes need.
func (g Dense) fmaScratch(n, threads int) int64 {
	return int64(max(n*g.Out, threads*g.Out*panel))
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

func (d *denseWork) backward(part, parts int) {
	defer d.v.leave(d.v.enter())
	g := d.g
	if part == 0 {
		db := d.grad.Bias[:g.Out]
		if d.grad.First {
			clear(db)
		}
		for r := range d.n {
			d.v.add(db, d.dy[r*g.Out:][:g.Out])
		}
	}
	pack := d.scratch[part*g.Out*panel:][:g.Out*panel]
	first, last := share((g.In+panel-1)/panel, part, parts)
	first, last = first*panel, min(last*panel, g.In)
	for i := first; i < last; i += strip {
		end := min(i+strip, last)
		p := product{
			a: d.x[i:], rowA: 1, stepA: g.In, segments: 1, steps: d.n,
			b: d.dy, stepB: g.Out, c: d.grad.W[i*g.Out:], rowC: g.Out,
		}
		if !d.grad.First {
			p.from, p.rowFrom = p.c, g.Out
		}
		d.v.compute(p, end-i, g.Out)
		if d.dx != nil {
			d.inputs(i, end, pack)
		}
	}
}

// inputs writes the gradients of inputs [i, end). pack is scratch.
func (d *denseWork) inputs(i, end int, pack []float32) {
	g := d.g
	p := product{
		a: d.dy, rowA: g.Out, stepA: 1, segments: 1, steps: g.Out,
		b: pack, stepB: panel, rowC: g.In,
	}
	if g.Rectified {
		p.rectified = 1
	}
	for ; i < end; i += panel {
		cols := min(panel, end-i)
		if g.Rectified && &d.dx[0] != &d.x[0] {
			for r := range d.n {
				copy(d.dx[r*g.In+i:][:cols], d.x[r*g.In+i:])
			}
		}
		d.v.transposed(pack, panel, d.w[i*g.Out:], g.Out, cols, g.Out)
		p.c = d.dx[i:]
		d.v.compute(p, d.n, cols)
	}
}
