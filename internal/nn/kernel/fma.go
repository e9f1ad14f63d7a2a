// SPDX-License-Identifier: Apache-2.0

package kernel

import "sync/atomic"

// FMA returns the set "fma-1", whose arithmetic is stated in the package's
// documentation: by assembly if this processor can run it, else as FMAReference.
func FMA() Set { return fmaSet(fastest(), nil) }

// fma512 returns the set "fma-1" by assembly with vectors of sixteen: the same bits. It
// is for who asks for it: FMA does not choose it. ok says whether this processor can
// run it.
func fma512() (s Set, ok bool) {
	if !assembled512() {
		return Set{}, false
	}
	return fmaSet(avx512, nil), true
}

// fastest returns how fma-1 runs here.
func fastest() vector {
	if assembled() {
		return avx2
	}
	return plainGo
}

// FMAReference returns the set "fma-1" in plain Go: the same bits on any
// processor, some hundred times slower.
func FMAReference() Set { return fmaSet(plainGo, nil) }

// fma is the set on a team. It remembers the work under way, for the team's
// members; without a team it remembers nothing, and may be used by any number of
// goroutines.
type fma struct {
	v    vector
	team *Team

	dense    denseWork
	conv     convWork
	joint    jointWork
	norm     normWork
	residual residualWork
	elements elementWork
	// The methods that members run, bound once: to bind one allocates.
	denseForward, denseBackward   func(part, parts int)
	convForward, weightGradients  func(part, parts int)
	inputGradients                func(part, parts int)
	jointForward, jointFinish     func(part, parts int)
	jointBackward                 func(part, parts int)
	normStatistics, normForward   func(part, parts int)
	normGradients, normInputs     func(part, parts int)
	addResidual, maskResidual     func(part, parts int)
	addResidualGradient           func(part, parts int)
	runConvert, runAdam, runCheck func(part, parts int)
}

func fmaSet(v vector, t *Team) Set {
	k := &fma{v: v, team: t}
	if t != nil {
		k.denseForward, k.denseBackward = k.dense.forward, k.dense.backward
		k.convForward, k.weightGradients = k.conv.forward, k.conv.weightGradients
		k.inputGradients = k.conv.inputGradients
		k.jointForward, k.jointFinish, k.jointBackward = k.joint.forward, k.joint.finish, k.joint.backward
		k.normStatistics, k.normForward = k.norm.statistics, k.norm.forward
		k.normGradients, k.normInputs = k.norm.gradients, k.norm.inputGradients
		k.addResidual, k.maskResidual, k.addResidualGradient = k.residual.add, k.residual.mask, k.residual.addGradient
		k.runConvert, k.runAdam, k.runCheck = k.elements.convert, k.elements.adam, k.elements.check
	}
	return Set{
		Name:          "fma-1",
		Convert:       k.Convert,
		ConvForward:   k.ConvForward,
		ConvBackward:  k.ConvBackward,
		DenseForward:  k.DenseForward,
		DenseBackward: k.DenseBackward,
		JointForward:  k.JointForward,
		JointBackward: k.JointBackward,

		NormStatistics: k.NormStatistics,
		NormForward:    k.NormForward,
		NormBackward:   k.NormBackward,

		AddResidual:         k.AddResidual,
		MaskResidual:        k.MaskResidual,
		AddResidualGradient: k.AddResidualGradient,

		Adam:   k.Adam,
		Finite: k.Finite,
		on:     func(t *Team) Set { return fmaSet(v, t) },
	}
}

func (k *fma) DenseForward(g Dense, n int, x, w, bias, y, scratch []float32) {
	d := denseWork{v: k.v, g: g, n: n, x: x[:n*g.In], w: w[:g.In*g.Out], bias: bias[:g.Out], y: y[:n*g.Out], scratch: scratch}
	if k.team == nil || d.small() {
		d.forward(0, 1)
		return
	}
	k.dense = d
	k.team.run(k.denseForward)
	k.dense = denseWork{}
}

func (k *fma) DenseBackward(g Dense, n int, x, w, dy []float32, grad Gradient, dx, scratch []float32) {
	d := denseWork{v: k.v, g: g, n: n, x: x[:n*g.In], w: w[:g.In*g.Out], dy: dy[:n*g.Out], grad: grad, scratch: scratch}
	if d.grad.Bias = grad.Bias[:g.Out]; grad.Consumer == nil {
		d.grad.W = grad.W[:g.In*g.Out]
	}
	if dx != nil {
		d.dx = dx[:n*g.In]
	}
	if k.team == nil || d.small() {
		d.backward(0, 1)
		return
	}
	k.dense = d
	k.team.run(k.denseBackward)
	k.dense = denseWork{}
}

func (k *fma) ConvForward(g Conv, n int, x, w, bias, y []float32, arg []uint8, scratch []float32) {
	c := convWork{v: k.v, g: g, n: n, x: x[:n*g.H*g.W*g.C], w: w[:g.weights()*g.F], bias: bias[:g.F], arg: arg, scratch: scratch}
	c.outH, c.outW = g.Out()
	_, wide := g.padded()
	c.wide = wide * g.C
	c.y = y[:n*c.outH*c.outW*g.F]
	if k.team == nil || c.small() {
		c.forward(0, 1)
		return
	}
	k.conv = c
	k.team.run(k.convForward)
	k.conv = convWork{}
}

func (k *fma) ConvBackward(g Conv, n int, x, w []float32, arg []uint8, dy []float32, grad Gradient, dx, scratch []float32) {
	c := convWork{v: k.v, g: g, n: n, x: x[:n*g.H*g.W*g.C], w: w[:g.weights()*g.F], arg: arg, grad: grad, dx: dx, scratch: scratch}
	c.outH, c.outW = g.Out()
	_, wide := g.padded()
	c.wide = wide * g.C
	c.dy = dy[:n*c.outH*c.outW*g.F]
	c.grad.Partial = grad.Partial[:g.Partials()]
	if grad.First {
		clear(c.grad.Partial)
	}
	together := k.team != nil && !c.small()
	if together {
		k.conv = c
		k.team.run(k.weightGradients)
	} else {
		c.weightGradients(0, 1)
	}
	if grad.Last {
		c.gather()
	}
	if dx != nil {
		c.turnWeights()
		if together {
			k.team.run(k.inputGradients)
		} else {
			c.inputGradients(0, 1)
		}
	}
	if together {
		k.conv = convWork{}
	}
}

func (k *fma) JointForward(j Joint, n int, d *JointData) {
	w := newJoint(k.v, j, n, d)
	sums := (groups - 1) * n * j.Dense.Out
	w.sums, w.own, w.each = d.Scratch[:sums], d.Scratch[sums:], j.forwardScratch(n, w.ranged)
	if k.team == nil || w.dense.small() {
		w.forward(0, 1)
		w.finish(0, 1)
		return
	}
	k.joint = w
	k.team.run(k.jointForward)
	if n*j.Dense.Out < few {
		w.finish(0, 1)
	} else {
		k.team.run(k.jointFinish)
	}
	k.joint = jointWork{}
}

func (k *fma) JointBackward(j Joint, n int, d *JointData) {
	w := newJoint(k.v, j, n, d)
	w.own, w.each = d.Scratch, j.backwardScratch(d.DenseGrad.Consumer != nil)
	if k.team == nil || w.dense.small() {
		w.backward(0, 1)
	} else {
		k.joint = w
		k.team.run(k.jointBackward)
		k.joint = jointWork{}
	}
	if d.ConvGrad.Last {
		w.conv.gather()
	}
}

func (k *fma) NormStatistics(g Norm, n int, x, mean, variance []float32) {
	w := normWork{v: k.v, g: g, n: n, x: x[:n*g.H*g.W*g.C], mean: mean[:g.C], variance: variance[:g.C]}
	if k.team == nil || w.small() {
		w.statistics(0, 1)
		return
	}
	k.norm = w
	k.team.run(k.normStatistics)
	k.norm = normWork{}
}

func (k *fma) NormForward(g Norm, n int, x, mean, variance, gamma, beta, y []float32, arg []uint8, scratch []float32) {
	w := forwardNorm(k.v, g, n, x, mean, variance, gamma, beta, y, arg, scratch)
	if k.team == nil || w.small() {
		w.forward(0, 1)
		return
	}
	k.norm = w
	k.team.run(k.normForward)
	k.norm = normWork{}
}

func (k *fma) NormBackward(g Norm, n int, x, mean, variance, gamma []float32, arg []uint8, dy, dgamma, dbeta, dx, scratch []float32) {
	w := backwardNorm(k.v, g, n, x, mean, variance, gamma, arg, dy, dgamma, dbeta, dx, scratch)
	if k.team == nil || w.small() {
		w.gradients(0, 1)
		if dx != nil {
			w.inputGradients(0, 1)
		}
		return
	}
	k.norm = w
	k.team.run(k.normGradients)
	if dx != nil {
		k.team.run(k.normInputs)
	}
	k.norm = normWork{}
}

// residualWork is a pass of an addition, whose records are shared out.
type residualWork struct {
	v          vector
	g          Residual
	n          int
	earlier, y []float32 // what is added and what is added to, or their gradients
}

// part returns the work on some of the records.
func (w *residualWork) part(i, parts int) residualWork {
	from, to := share(w.n, i, parts)
	g := w.g
	return residualWork{w.v, g, to - from, w.earlier[from*g.FromH*g.FromW*g.FromC:], w.y[from*g.H*g.W*g.C:]}
}

func (w *residualWork) add(i, parts int) {
	p := w.part(i, parts)
	p.v.addResidual(p.g, p.n, p.earlier, p.y)
}

func (w *residualWork) mask(i, parts int) {
	p := w.part(i, parts)
	p.v.maskResidual(p.g, p.n, p.earlier, p.y)
}

func (w *residualWork) addGradient(i, parts int) {
	p := w.part(i, parts)
	p.v.addResidualGradient(p.g, p.n, p.y, p.earlier)
}

// small says that a pass is not worth more than one thread.
func (w *residualWork) small() bool { return w.n*w.g.H*w.g.W*w.g.C < few }

func (k *fma) AddResidual(g Residual, n int, earlier, y []float32) {
	w := residualWork{k.v, g, n, earlier, y}
	if k.team == nil || w.small() {
		w.add(0, 1)
		return
	}
	k.residual = w
	k.team.run(k.addResidual)
	k.residual = residualWork{}
}

func (k *fma) MaskResidual(g Residual, n int, earlier, dy []float32) {
	w := residualWork{k.v, g, n, earlier, dy}
	if k.team == nil || w.small() || !g.Rectified {
		w.mask(0, 1)
		return
	}
	k.residual = w
	k.team.run(k.maskResidual)
	k.residual = residualWork{}
}

func (k *fma) AddResidualGradient(g Residual, n int, dy, dx []float32) {
	w := residualWork{k.v, g, n, dx, dy}
	if k.team == nil || w.small() {
		w.addGradient(0, 1)
		return
	}
	k.residual = w
	k.team.run(k.addResidualGradient)
	k.residual = residualWork{}
}

// elementWork is a loop over elements.
type elementWork struct {
	v          vector
	w, g, m, s []float32
	factors    AdamFactors
	bytes      []byte
	scale      float32
	special    atomic.Bool
}

// part returns the part of n elements, cut at multiples of 64.
func part(n, i, parts int) (from, to int) {
	from, to = share((n+63)/64, i, parts)
	return min(from*64, n), min(to*64, n)
}

func (e *elementWork) convert(i, parts int) {
	defer e.v.leave(e.v.enter())
	from, to := part(len(e.bytes), i, parts)
	e.v.convert(e.w[from:to], e.bytes[from:to], e.scale)
}

func (e *elementWork) adam(i, parts int) {
	defer e.v.leave(e.v.enter())
	from, to := part(len(e.w), i, parts)
	e.v.adam(e.w[from:to], e.g[from:to], e.m[from:to], e.s[from:to], e.factors)
}

func (e *elementWork) check(i, parts int) {
	from, to := part(len(e.w), i, parts)
	if !e.v.finite(e.w[from:to]) {
		e.special.Store(true)
	}
}

// few elements are not worth more than one thread.
const few = 1 << 13

func (k *fma) Convert(dst []float32, src []byte, scale float32) {
	if k.team == nil || len(src) < few {
		before := k.v.enter()
		defer k.v.leave(before)
		k.v.convert(dst, src, scale)
		return
	}
	k.elements.v, k.elements.w, k.elements.bytes, k.elements.scale = k.v, dst[:len(src)], src, scale
	k.team.run(k.runConvert)
	k.elements.forget()
}

func (k *fma) Adam(w, g, m, v []float32, f AdamFactors) {
	if k.team == nil || len(w) < few {
		before := k.v.enter()
		defer k.v.leave(before)
		k.v.adam(w, g, m, v, f)
		return
	}
	e := &k.elements
	e.v, e.w, e.g, e.m, e.s, e.factors = k.v, w, g[:len(w)], m[:len(w)], v[:len(w)], f
	k.team.run(k.runAdam)
	e.forget()
}

func (k *fma) Finite(v []float32) bool {
	if k.team == nil || len(v) < few {
		return k.v.finite(v)
	}
	k.elements.v, k.elements.w = k.v, v
	k.elements.special.Store(false)
	k.team.run(k.runCheck)
	k.elements.forget()
	return !k.elements.special.Load()
}

// forget drops the slices.
func (e *elementWork) forget() { e.w, e.g, e.m, e.s, e.bytes = nil, nil, nil, nil, nil }
