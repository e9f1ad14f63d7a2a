// SPDX-License-Identifier: Apache-2.0

package kernel

// Set is a set of kernels: the loops, and with them one order of summation and
// one rounding rule, so one set gives the same bits everywhere. It is a value
// that callers pass on; there is no global choice.
//
// All slices hold float32 values, records outermost, channels innermost. n is
// the number of records; slices may be longer than needed. Kernels write only
// the ranges named here, keep no reference, allocate nothing, and may run at
// once on memory that does not overlap. Sizes are the caller's promise: a slice
// that is too short is a bug and panics.
type Set struct {
	// Name identifies the bits: two sets with one name give equal results.
	Name string

	// Convert writes dst[i] = src[i]*scale.
	Convert func(dst []float32, src []byte, scale float32)

	// ConvForward writes y [n, outH, outW, F] from x [n, H, W, C], w [K, K, C, F]
	// and bias [F], pooled and rectified as g says. If g.Pool > 1 it also writes
	// arg [n, outH, outW, F], each maximum's row-major place in its window.
	// scratch has g.ForwardScratch() values, their content is undefined.
	ConvForward func(g Conv, n int, x, w, bias, y []float32, arg []uint8, scratch []float32)

	// ConvBackward adds the gradients of w and bias to dw and db, given dy, the
	// gradient of y, and writes the gradient of x to dx, unless dx is nil. dy
	// keeps its content. scratch has g.BackwardScratch(dx != nil) values.
	ConvBackward func(g Conv, n int, x, w, y []float32, arg []uint8, dy, dw, db, dx, scratch []float32)

	// DenseForward writes y [n, Out] from x [n, In], w [In, Out] and bias [Out].
	DenseForward func(g Dense, n int, x, w, bias, y []float32)

	// DenseBackward adds to dw and db and writes dx, unless it is nil. It
	// overwrites dy with the gradient before the ReLU when g.ReLU.
	DenseBackward func(g Dense, n int, x, w, y, dy, dw, db, dx []float32)

	// Adam updates w, m and v with the gradient g; all have one length.
	Adam func(w, g, m, v []float32, f AdamFactors)
}

// Conv is the geometry of a convolution without padding, with stride one, and
// of what is fused to it.
type Conv struct {
	H, W, C int  // input
	K       int  // height and width of the window
	F       int  // filters
	ReLU    bool // rectify
	Pool    int  // height, width and stride of the max-pool's window, 1 for none
}

// Out returns the height and width of the output after pooling.
func (g Conv) Out() (h, w int) { return (g.H - g.K + 1) / g.Pool, (g.W - g.K + 1) / g.Pool }

// ForwardScratch returns the float32 values of scratch that ConvForward needs:
// the rows of the convolution that one row of the output is pooled from.
func (g Conv) ForwardScratch() int {
	if g.Pool == 1 {
		return 0
	}
	_, w := g.Out()
	return g.Pool * w * g.Pool * g.F
}

// BackwardScratch returns the float32 values of scratch that ConvBackward needs:
// the gradient of the weights, filters outermost, and if the input's gradient
// is wanted, the gradient of one row before pooling.
func (g Conv) BackwardScratch(dx bool) int {
	n := g.K * g.K * g.C * g.F
	return n
}

// Dense is the geometry of a fully connected layer.
type Dense struct {
	In, Out int
	ReLU    bool // rectify
}

// AdamFactors are the constants of one Adam step.
type AdamFactors struct {
	Alpha   float32 // learning rate, corrected for the moments' start at zero
	Decay1  float32 // 1 - beta1
	Decay2  float32 // 1 - beta2
	Epsilon float32
}

// Generic returns the portable reference set "generic-1", in plain Go.
func Generic() Set {
	return Set{Name: "generic-1"}
}
