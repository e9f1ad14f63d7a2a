// SPDX-License-Identifier: Apache-2.0

package kernel

// The gradient of a convolution's input. Where nothing is pooled and windows are
// one apart it is itself a convolution: of the output's gradient, with zeros around
// it, and the weights turned by half a turn. That has the order of sums of the
// definition: outputs row by row, and at each the filters.

// turned says that the gradient of the input is computed that way.
func (g Conv) turned() bool { return g.method() == methodProducts && g.stride() == 1 }

// gradientScratch returns the values that a thread needs for the gradient of one
// record: that of the output with zeros around it, or that of the padded input.
func (g Conv) gradientScratch() int {
	if g.turned() {
		return (g.H + g.K - 1) * (g.W + g.K - 1) * g.F
	}
	h, w := g.padded()
	return h * w * g.C
}

// turnWeights leaves the weights at the start of the scratch as inputGradients
// needs them: filters outermost, or turned, channels in innermost.
func (c *convWork) turnWeights() {
	g, taps := c.g, c.g.weights()
	if !g.turned() {
		c.v.transposed(c.scratch, taps, c.w, g.F, taps, g.F)
		return
	}
	for k := range g.K * g.K {
		to := c.scratch[(g.K*g.K-1-k)*g.C*g.F:]
		c.v.transposed(to, g.C, c.w[k*g.C*g.F:], g.F, g.C, g.F)
	}
}

// inputGradients writes dx. Records are shared out. The weights, turned, are the
// first part of the scratch.
func (c *convWork) inputGradients(part, parts int) {
	defer c.v.leave(c.v.enter())
	g := c.g
	size := g.weights() * g.F
	w := c.scratch[:size]
	scratch := c.scratch[size+part*g.gradientScratch():][:g.gradientScratch()]
	first, last := share(c.n, part, parts)
	for r := first; r < last; r++ {
		if g.turned() {
			c.turnedGradient(r, w, scratch)
		} else {
			c.scatteredGradient(r, w, scratch)
		}
	}
}

func (c *convWork) turnedGradient(r int, w, frame []float32) {
	g := c.g
	in, wide := g.H*g.W*g.C, (g.W+g.K-1)*g.F
	dx := c.dx[r*in:][:in]
	surround(frame, c.dy[c.gradient(r, 0, 0):], c.outH, c.outW*g.F, wide, g.K-1-g.Pad.Top, (g.K-1-g.Pad.Left)*g.F, 0, g.H+g.K-1)
	p := product{
		rowA: g.F, stepA: 1, segA: wide, segments: g.K, steps: g.K * g.F,
		b: w, stepB: g.C, rowC: g.C,
	}
	if g.Rectified {
		p.rectified = 1
		if &c.dx[0] != &c.x[0] {
			copy(dx, c.x[r*in:])
		}
	}
	for y := range g.H {
		p.a, p.c = frame[y*wide:], dx[y*g.W*g.C:]
		c.v.compute(p, g.W, g.C)
	}
}

func (c *convWork) scatteredGradient(r int, w, sum []float32) {
	g, taps := c.g, c.g.weights()
	clear(sum)
	for row := range c.outH {
		for col := range c.outW {
			at := c.gradient(r, row, col)
			corner := (row*c.wide + col*g.C) * g.stride() // where nothing is pooled
			for f, d := range c.dy[at:][:g.F] {
				if none(d) {
					continue
				}
				if g.Pool > 1 {
					corner = c.corner(row, col, at+f)
				}
				c.v.addScaled(sum[corner:], c.wide, w[f*taps:], g.K*g.C, g.K, g.K*g.C, d)
			}
		}
	}
	for y := range g.H {
		at := (r*g.H + y) * g.W * g.C
		to, from := c.dx[at:][:g.W*g.C], sum[(y+g.Pad.Top)*c.wide+g.Pad.Left*g.C:]
		if g.Rectified {
			c.v.rectified(to, from, c.x[at:])
		} else {
			copy(to, from)
		}
	}
}
