// SPDX-License-Identifier: Apache-2.0

package kernel

// block is how much of a long sum is done for all outputs before its next part:
// the weights of one part stay in the nearest caches. Chains continue in the
// output, so the bits do not depend on it.
const block = 128

func denseForward(g Dense, n int, x, w, bias, y []float32) {
	y = y[:n*g.Out]
	for i := 0; i < len(y); i += g.Out {
		copy(y[i:i+g.Out], bias)
	}
	for k := 0; k < g.In; k += block {
		a := factor{data: x[k:], row: g.In, inner: 1}
		accumulate(n, g.Out, 1, min(block, g.In-k), a, w[k*g.Out:], g.Out, y, g.Out)
	}
	if g.ReLU {
		ReLU(y)
	} else {
		flushAll(y)
	}
}

// genericScratch returns the values that denseGradient needs: the gradient of a
// strip's weights if it is kept nowhere else.
func (g Dense) genericScratch(consumed bool) int64 {
	if consumed {
		return int64(min(strip, g.In)) * int64(g.Out)
	}
	return 0
}

// denseGradient is the backward pass, a strip of inputs at a time if the gradient is
// consumed.
func denseGradient(g Dense, n int, x, w, dy []float32, grad Gradient, dx, scratch []float32) {
	grad.start()
	if grad.Consumer == nil {
		denseBackward(g, n, 0, g.In, x, w, dy, grad.W, grad.Bias, dx)
		return
	}
	for i := 0; i < g.In; i += strip {
		end := min(i+strip, g.In)
		dw := scratch[:(end-i)*g.Out]
		clear(dw)
		denseBackward(g, n, i, end, x, w, dy, dw, grad.Bias, dx)
		grad.Consumer.take(plainGo, i*g.Out, dw)
	}
}

// denseBackward does the inputs [first, last), whose weights' gradients are dw, and
// with the first the bias.
func denseBackward(g Dense, n, first, last int, x, w, dy, dw, db, dx []float32) {
	if first == 0 {
		for r := range n {
			addTo(db[:g.Out], dy[r*g.Out:][:g.Out])
		}
	}
	// dw is the product of x, transposed, and dy; its sums run over records.
	for k := 0; k < n; k += block {
		a := factor{data: x[k*g.In+first:], row: 1, inner: g.In}
		accumulate(last-first, g.Out, 1, min(block, n-k), a, dy[k*g.Out:], g.Out, dw, g.Out)
	}
	if dx == nil {
		return
	}
	// Four rows of w stay near while all records pass.
	i := first
	for ; i+4 <= last; i += 4 {
		w0, w1, w2, w3 := w[i*g.Out:][:g.Out], w[(i+1)*g.Out:][:g.Out], w[(i+2)*g.Out:][:g.Out], w[(i+3)*g.Out:][:g.Out]
		for r := range n {
			at := r*g.In + i
			s0, s1, s2, s3 := dot4(dy[r*g.Out:][:g.Out], w0, w1, w2, w3)
			s := [4]float32{s0, s1, s2, s3}
			storeGradient(dx[at:][:4], s[:], x[at:], g.Rectified)
		}
	}
	for ; i < last; i++ {
		for r := range n {
			at := r*g.In + i
			s := [1]float32{dot(dy[r*g.Out:][:g.Out], w[i*g.Out:])}
			storeGradient(dx[at:][:1], s[:], x[at:], g.Rectified)
		}
	}
}

// addTo adds src to dst, element by element.
func addTo(dst, src []float32) {
	src = src[:len(dst)]
	for i, v := range src {
		dst[i] += v
	}
}
