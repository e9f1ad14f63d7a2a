// SPDX-License-Identifier: Apache-2.0

package kernel

// The gradient of a convolution's input. Where nothing is pooled it is itself made of
// convolutions: of the output's gradient, with zeros around it, and the weights turned
// by half a turn. With a stride of s, the pixels of the padded input whose row leaves
// the same rest, divided by s, and whose column does, met the same rows and columns of
// the window: each of these s*s phases is a convolution with those, and its pixels lie
// s apart. That has the order of sums of the definition: outputs row by row, and at
// each the filters.

// turned says that the gradient of the input is computed that way.
func (g Conv) turned() bool { return g.method() == methodProducts }

// taps returns how many rows of the window, or columns, phase i meets.
func (g Conv) taps(i int) int { return max(0, g.K-i+g.stride()-1) / g.stride() }

// lattice returns how many zeros come before the first of the output's gradients, in
// rows or in columns, and how many there are with all zeros, for size values of the
// input after pad zeros.
func (g Conv) lattice(size, pad int) (before, all int) {
	before = (g.K - 1 - pad) / g.stride()
	return before, before + (size-1+pad)/g.stride() + 1
}

// gradientScratch returns the values that a thread needs for the gradient of one
// record: that of the output with zeros around it, or that of the padded input.
func (g Conv) gradientScratch() int {
	if g.turned() {
		_, h := g.lattice(g.H, g.Pad.Top)
		_, w := g.lattice(g.W, g.Pad.Left)
		return h * w * g.F
	}
	h, w := g.padded()
	return h * w * g.C
}

// turnWeights leaves the weights at the start of the scratch as inputGradients
// needs them: filters outermost, or turned, phase by phase, channels in innermost.
func (c *convWork) turnWeights() {
	g, taps, s := c.g, c.g.weights(), c.g.stride()
	if !g.turned() {
		c.v.transposed(c.scratch, taps, c.w, g.F, taps, g.F)
		return
	}
	to := c.scratch
	for i := range s * s {
		for y := g.taps(i/s) - 1; y >= 0; y-- {
			for x := g.taps(i%s) - 1; x >= 0; x-- {
				k := (i/s+y*s)*g.K + i%s + x*s
				c.v.transposed(to, g.C, c.w[k*g.C*g.F:], g.F, g.C, g.F)
				to = to[g.C*g.F:]
			}
		}
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
	g, s := c.g, c.g.stride()
	in := g.H * g.W * g.C
	dx := c.dx[r*in:][:in]
	top, rows := g.lattice(g.H, g.Pad.Top)
	left, cols := g.lattice(g.W, g.Pad.Left)
	wide := cols * g.F
	surround(frame, c.dy[c.gradient(r, 0, 0):], c.outH, c.outW*g.F, wide, top, left*g.F, 0, rows)
	p := product{rowA: g.F, stepA: 1, segA: wide, stepB: g.C, rowC: s * g.C}
	if g.Rectified {
		p.rectified = 1
		if &c.dx[0] != &c.x[0] {
			copy(dx, c.x[r*in:])
		}
	}
	for i := range s * s {
		high, broad := g.taps(i/s), g.taps(i%s)
		p.segments, p.steps = high, broad*g.F
		p.b, w = w, w[high*broad*g.C*g.F:]
		// The first row and column of the input that are in the phase, and its columns.
		first, from := toPhase(i/s, g.Pad.Top, s), toPhase(i%s, g.Pad.Left, s)
		pixels := (g.W - from + s - 1) / s
		if pixels <= 0 {
			continue
		}
		for y := first; y < g.H; y += s {
			out := dx[(y*g.W+from)*g.C:]
			if high*broad == 0 { // no window has these pixels
				for x := range pixels {
					clear(out[x*s*g.C:][:g.C])
				}
				continue
			}
			row, col := (y+g.Pad.Top)/s-high+1+top, (from+g.Pad.Left)/s-broad+1+left
			p.a, p.c = frame[row*wide+col*g.F:], out
			c.v.compute(p, pixels, g.C)
		}
	}
}

// toPhase returns how far it is from pad to the next number that leaves the rest i when
// divided by s.
func toPhase(i, pad, s int) int { return (i - pad%s + s) % s }

func (c *convWork) scatteredGradient(r int, w, sum []float32) {
	g, taps := c.g, c.g.weights()
	clear(sum)
	for row := range c.outH {
		for col := range c.outW {
			at := c.gradient(r, row, col)
			for f, d := range c.dy[at:][:g.F] {
				if none(d) {
					continue
				}
				c.v.addScaled(sum[c.corner(row, col, at+f):], c.wide, w[f*taps:], g.K*g.C, g.K, g.K*g.C, d)
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
