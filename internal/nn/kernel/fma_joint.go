// SPDX-License-Identifier: Apache-2.0

package kernel

// jointWork is one pass of a convolution and the dense layer after it. A range is half
// a row of the convolution's output, of all records. Its values lie together, records
// after each other, in the order of the ranges.
//
// Forward a thread does some groups of the dense layer's sums: range by range the
// convolution, then what the range adds to the sums. Backward it does some segments of
// the convolution's gradient, the last first, since what was made last is nearest:
// range by range the gradients of the dense layer's weights and of the values, then
// the segment's sums. So with two threads both passes of a range are done by one.
type jointWork struct {
	conv   convWork
	dense  denseWork
	x      Input
	ranged bool      // the convolution's output is kept
	sums   []float32 // of the groups after the first
	own    []float32 // of all threads
	each   int       // of one
}

func newJoint(v vector, j Joint, n int, d *JointData) jointWork {
	g, f := j.Conv, j.Dense
	w := jointWork{
		conv:  convWork{v: v, g: g, n: n, w: d.ConvW[:g.weights()*g.F], bias: d.ConvBias[:g.F], y: d.Mid, dy: d.Mid, arg: d.Arg, maxima: d.Mid == nil, grad: d.ConvGrad},
		dense: denseWork{v: v, g: f, n: n, w: d.DenseW[:f.In*f.Out], bias: d.DenseBias[:f.Out], y: d.Y[:n*f.Out], dy: d.Y[:n*f.Out], grad: d.DenseGrad},
		x:     d.X, ranged: d.Mid != nil,
	}
	w.conv.outH, w.conv.outW = g.Out()
	return w
}

// fmaScratch returns the float32 values of scratch that both passes need.
func (j Joint) fmaScratch(n, threads int, train, consumed bool) int64 {
	size := (groups-1)*n*j.Dense.Out + threads*j.forwardScratch(n, train)
	if train {
		size = max(size, threads*j.backwardScratch(consumed))
	}
	return int64(size)
}

// forwardScratch returns what a thread needs forward.
func (j Joint) forwardScratch(n int, train bool) int {
	g := j.Conv
	size := g.viewScratch(nearRecords)
	size += g.runScratch(g.halfRow())
	if !train {
		values := min(n, inferRecords) * g.halfRow() * g.F
		size += values + (values+3)/4
	}
	return size
}

// backwardScratch returns what a thread needs backward.
func (j Joint) backwardScratch(consumed bool) int {
	g := j.Conv
	return j.Dense.stripScratch(consumed) + g.viewScratch(nearRecords) + g.rangeTables()
}

// halfRow returns the pixels of the longer half of a row of the output.
func (g Conv) halfRow() int {
	_, w := g.Out()
	return (w + 1) / 2
}

// rangeTables returns the values of the tables of one channel of some records of a
// range, and of sums that are not needed.
func (g Conv) rangeTables() int {
	if g.method() != methodTables {
		return 0
	}
	return nearRecords*3*(2*g.halfRow()+1)*4 + g.F
}

// half returns the run that half h of the rows is, the index of its first value in a
// record, and how many values it has.
func (w *jointWork) half(h int) (r run, first, values int) {
	c := &w.conv
	r.row, r.from, r.to = halfRow(h, c.outW)
	return r, (r.row*c.outW + r.from) * c.g.F, (r.to - r.from) * c.g.F
}

// halves returns the halves of rows [from, to) that are group i of the sums.
func (w *jointWork) halves(i int) (from, to int) {
	return 2 * w.conv.outH * i / groups, 2 * w.conv.outH * (i + 1) / groups
}

// base returns the first group that has inputs.
func (w *jointWork) base() int {
	i := 0
	for w.dense.g.cut(i+1) == 0 {
		i++
	}
	return i
}

// sum returns where group i is summed.
func (w *jointWork) sum(i int) []float32 {
	d := &w.dense
	if i -= w.base(); i > 0 {
		return w.sums[(i-1)*d.n*d.g.Out:]
	}
	return d.y
}

func (w *jointWork) forward(part, parts int) {
	v := w.conv.v
	defer v.leave(v.enter())
	// Groups are shared out; if that is uneven, parts of their records.
	shares := parts
	for _, n := range []int{4, 2} {
		if parts%n == 0 {
			shares = parts / n
			break
		}
	}
	first, last := share(groups*shares, part, parts)
	for u := first; u < last; u++ {
		if from, to := share(w.conv.n, u%shares, shares); from < to {
			w.forwardGroup(u/shares, from, to, w.own[part*w.each:][:w.each])
		}
	}
}

// forwardGroup does group i for the records [first, last).
func (w *jointWork) forwardGroup(i, first, last int, scratch []float32) {
	c, d := &w.conv, &w.dense
	g, out := c.g, d.g.Out
	frame, scratch := scratch[:g.viewScratch(nearRecords)], scratch[g.viewScratch(nearRecords):]
	step := last - first
	var kept []float32
	var places []uint8
	if !w.ranged {
		step = min(step, inferRecords)
		size := min(c.n, inferRecords) * g.halfRow() * g.F
		kept, places, scratch = scratch[:size], bytesOf(scratch[size:][:(size+3)/4]), scratch[size+(size+3)/4:]
	}
	c.pad(scratch)
	sums, started := w.sum(i), false
	for h, end := w.halves(i); h < end; h++ {
		run, at, size := w.half(h)
		if size == 0 {
			continue
		}
		for r := first; r < last; r += step {
			to := min(r+step, last)
			y, arg := kept, places
			if w.ranged {
				from := at*c.n + r*size
				y, arg = c.y[from:], c.places(from)
			}
			for q := r; q < to; q += nearRecords {
				count := min(nearRecords, to-q)
				x := g.view(c.v, w.x, q, q+count, run, frame)
				var near []uint8
				if g.Pool > 1 {
					near = arg[(q-r)*size:]
				}
				c.run(x, count, run.to-run.from, y[(q-r)*size:], near, scratch)
			}
			for k := 0; k < size; k += depth {
				p := product{
					a: y[k:], rowA: size, stepA: 1, segments: 1, steps: min(depth, size-k),
					b: d.w[(at+k)*out:], stepB: out, c: sums[r*out:], rowC: out,
				}
				if started || k > 0 {
					p.from, p.rowFrom = p.c, out
				}
				c.v.compute(p, to-r, out)
			}
		}
		started = true
	}
}

// finish adds up the sums of the groups.
func (w *jointWork) finish(part, parts int) {
	d := &w.dense
	defer d.v.leave(d.v.enter())
	first, last := share(d.n, part, parts)
	from, to := first*d.g.Out, last*d.g.Out
	if from == to {
		return
	}
	y := d.y[from:to]
	for i := w.base() + 1; i < groups; i++ {
		if d.g.cut(i) < d.g.cut(i+1) {
			d.v.add(y, w.sum(i)[from:to])
		}
	}
	d.conclude(y)
}

func (w *jointWork) backward(part, parts int) {
	c, d := &w.conv, &w.dense
	defer c.v.leave(c.v.enter())
	if part == 0 {
		d.biases()
	}
	scratch := w.own[part*w.each:][:w.each]
	n := d.g.stripScratch(d.grad.Consumer != nil)
	own, scratch := scratch[:n], scratch[n:]
	first, last := share(c.g.segments(), part, parts)
	for i := last - 1; i >= first; i-- {
		from, to := c.g.segment(i)
		for h := to - 1; h >= from; h-- {
			_, at, size := w.half(h)
			values := c.dy[at*c.n:][:c.n*size]
			for k := 0; k < size; k += strip {
				d.strip(values[k:], values[k:], size, at+k, min(strip, size-k), own)
			}
		}
		w.segment(i, scratch)
	}
}

// segment does the chains of segment i.
func (w *jointWork) segment(i int, scratch []float32) {
	c, g := &w.conv, w.conv.g
	frame, scratch := scratch[:g.viewScratch(nearRecords)], scratch[g.viewScratch(nearRecords):]
	sums := c.grad.Partial[i*g.parameters():][:g.parameters()]
	if c.grad.First {
		clear(sums)
	}
	from, to := g.segment(i)
	// A chain goes through all of a record's ranges before the next record.
	near := nearRecords
	if to-from > 1 {
		near = 1
	}
	for r := 0; r < c.n; r += near {
		count := min(near, c.n-r)
		for h := from; h < to; h++ {
			run, at, size := w.half(h)
			if size == 0 {
				continue
			}
			x := g.view(c.v, w.x, r, r+count, run, frame)
			at = at*c.n + r*size
			w.gradients(x, count, run.to-run.from, c.dy[at:], c.places(at), sums, scratch)
		}
	}
}

// gradients adds to the sums what a range of some records gives.
func (w *jointWork) gradients(x view, records, pixels int, dy []float32, arg []uint8, sums, scratch []float32) {
	c, g := &w.conv, w.conv.g
	if g.method() == methodTables {
		t := tables{step: g.C, row: x.row, record: x.record, entries: 2*pixels + 1, rows: 3, records: records}
		row := 4 * t.entries
		t.dst = scratch[:records*3*row]
		p := tap{
			table: t.dst, rowTable: row, recordTable: 3 * row, d: dy, arg: arg, filters: g.F, recordD: pixels * g.F,
			rowSum: g.C * g.F, pixels: pixels, records: records,
		}
		for ch := range g.C {
			t.src = x.data[ch:]
			t.run(c.v)
			p.of(g, ch, 0, g.F, sums, scratch[len(t.dst):])
			c.v.run(&p)
		}
		return
	}
	if g.method() == methodScatter && g.Pool == 2 {
		c.windows(x, records, dy, arg, pixels*g.F, pixels, 0, g.F, sums)
		return
	}
	for r := range records {
		x, wide, at := x.data[r*x.record:], x.row, r*pixels*g.F
		for f := 0; f < g.F; f += panel {
			to := min(f+panel, g.F)
			if g.method() == methodProducts {
				c.product(x, wide, dy[at:], 1, pixels, f, to, sums)
			} else {
				c.scatterRun(x, wide, dy[at:], arg[at:], pixels, f, to, sums)
			}
		}
	}
}
