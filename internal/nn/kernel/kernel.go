// SPDX-License-Identifier: Apache-2.0

package kernel

// Set is a set of kernels: the loops, and with them one order of summation and
// one rounding rule, so one set gives the same bits everywhere. It is a value
// that callers pass on; there is no global choice.
//
// All slices hold float32 values, records outermost, channels innermost. n is
// the number of records; slices may be longer than needed. Kernels write only
// the ranges named here, keep no reference, allocate nothing, and may run at
// once on memory that does not overlap, unless the set has a team. Sizes are the
// caller's promise: a slice that is too short is a bug and panics. Scratch is
// what Scratch of the layer's geometry says; its content is undefined before and
// after.
//
// Gradients take their places from the values they belong to: dx may be x
// itself, which is then overwritten after its last use.
type Set struct {
	// Name identifies the bits: two sets with one name give equal results.
	Name string

	// Convert writes dst[i] = src[i]*scale for all of src.
	Convert func(dst []float32, src []byte, scale float32)

	// ConvForward writes y [n, outH, outW, F] from x [n, H, W, C],
	// w [K, K, C, F] and bias [F], pooled and rectified as g says. If g.Pool > 1
	// it also writes arg [n, outH, outW, F], each maximum's row-major place in
	// its window, the first of equals.
	ConvForward func(g Conv, n int, x, w, bias, y []float32, arg []uint8, scratch []float32)

	// ConvBackward adds to the gradients of the weights and the bias, given dy,
	// the gradient of the pooled but not yet rectified output. Then it writes
	// dx [n, H, W, C], the gradient of x, unless dx is nil.
	ConvBackward func(g Conv, n int, x, w []float32, arg []uint8, dy []float32, grad Gradient, dx, scratch []float32)

	// DenseForward writes y [n, Out] from x [n, In], w [In, Out] and bias [Out],
	// rectified as g says.
	DenseForward func(g Dense, n int, x, w, bias, y, scratch []float32)

	// DenseBackward adds to the gradients of the weights and the bias, given dy,
	// the gradient of the not yet rectified output. Then it writes dx [n, In],
	// the gradient of x, unless dx is nil.
	DenseBackward func(g Dense, n int, x, w, dy []float32, grad Gradient, dx, scratch []float32)

	// JointForward writes d.Y from d.X, and JointBackward adds to the gradients of
	// all parameters, given d.Y's; it overwrites d.Mid. The bits are those of the two
	// layers one after the other.
	JointForward  func(j Joint, n int, d *JointData)
	JointBackward func(j Joint, n int, d *JointData)

	// NormStatistics, NormForward and NormBackward are the functions of that name,
	// with the same bits in every set.
	NormStatistics func(g Norm, n int, x, mean, variance []float32)
	NormForward    func(g Norm, n int, x, mean, variance, gamma, beta, y []float32, arg []uint8, scratch []float32)
	NormBackward   func(g Norm, n int, x, mean, variance, gamma []float32, arg []uint8, dy, dgamma, dbeta, dx, scratch []float32)

	// AddResidual, MaskResidual and AddResidualGradient are the functions of that name,
	// with the same bits in every set.
	AddResidual         func(g Residual, n int, earlier, y []float32)
	MaskResidual        func(g Residual, n int, earlier, dy []float32)
	AddResidualGradient func(g Residual, n int, dy, dx []float32)

	// Adam updates w, m and v with the gradient g; all have one length.
	Adam func(w, g, m, v []float32, f AdamFactors)

	// Finite says whether no value is infinite or NaN.
	Finite func(v []float32) bool

	on func(*Team) Set
}

// On returns the set with its work shared out to a team; its bits are the same.
// It is then used by one goroutine at a time. A set that knows no teams returns
// itself.
func (s Set) On(t *Team) Set {
	if s.on == nil || t == nil {
		return s
	}
	return s.on(t)
}

// Gradient is where the backward pass of a layer leaves the gradients of its
// parameters: sums over records, which may come in several calls, in order.
type Gradient struct {
	W, Bias []float32
	// Partial has Partials() values of a convolution's geometry: what is not
	// yet added up. It is kept from one call to the next.
	Partial []float32
	// First: the sums start from zero, whatever W, Bias and Partial hold.
	First bool
	// Last: W and Bias are due. Before, they are undefined.
	Last bool
	// Consumer, if not nil, takes the gradient of a dense layer's weights in place of
	// W. Then there is one call only: First and Last.
	Consumer *Consumer
}

// Conv is the geometry of a convolution and of what is fused to it. The zero
// values of Stride and Pad are the plain case: stride one, no padding.
type Conv struct {
	H, W, C int // input, without padding
	K       int // height and width of the window
	F       int // filters
	Pool    int // height, width and stride of the max-pool's window, 1 for none
	// Stride is how far apart neighbouring windows are, in rows and in columns;
	// zero means one.
	Stride int
	// Pad is what surrounds the input. Every window meets at least one row and
	// one column of the input itself.
	Pad Pad
	// ReLU says that the output is rectified.
	ReLU bool
	// Rectified says that x came out of a ReLU: its gradient is zero where x is
	// not positive.
	Rectified bool
}

// Pad counts the rows and columns of zeros around an input, which are not stored.
// A set states whether sums have their products; for finite values that shows in the
// sign of a zero at most.
type Pad struct{ Top, Left, Bottom, Right int }

// Out returns the height and width of the output, after pooling.
func (g Conv) Out() (h, w int) {
	s := g.stride()
	h = (g.H+g.Pad.Top+g.Pad.Bottom-g.K)/s + 1
	w = (g.W+g.Pad.Left+g.Pad.Right-g.K)/s + 1
	return h / g.Pool, w / g.Pool
}

// stride returns the stride, at least one.
func (g Conv) stride() int { return max(g.Stride, 1) }

// weights returns the number of weights of one filter.
func (g Conv) weights() int { return g.K * g.K * g.C }

// Partials returns the float32 values of Gradient.Partial, for any set.
func (g Conv) Partials() int64 { return int64(g.segments()) * int64(g.parameters()) }

// Scratch returns the float32 values of scratch that both passes need, with any
// set and at most the given number of threads. train and dx say whether the
// backward pass is wanted, and the gradient of x.
func (g Conv) Scratch(threads int, train, dx bool) int64 {
	n := max(g.ForwardScratch(), g.fmaScratch(threads, train, dx))
	if train {
		n = max(n, g.BackwardScratch(dx))
	}
	return n
}

// ForwardScratch returns the float32 values of scratch that generic-1 needs forward:
// the rows that one row of pooled output is made from. The content is undefined
// before and after.
func (g Conv) ForwardScratch() int64 {
	if g.Pool == 1 {
		return 0
	}
	_, w := g.Out()
	return int64(g.Pool) * int64(g.Pool) * int64(w) * int64(g.F)
}

// BackwardScratch returns the float32 values of scratch that generic-1 needs
// backward: the gradient of the weights, filters outermost; and if the gradient of
// x is wanted, the weights in that order and one record's gradient.
func (g Conv) BackwardScratch(dx bool) int64 {
	n := int64(g.weights()) * int64(g.F)
	if dx {
		n += n + int64(g.H)*int64(g.W)*int64(g.C)
	}
	return n
}

// Dense is the geometry of a fully connected layer.
type Dense struct {
	In, Out int
	// Rows and Cols say that the inputs are a flattened map of that size. Its
	// rows are where sums are restarted. Zero if there was none.
	Rows, Cols int
	// ReLU says that the output is rectified.
	ReLU bool
	// Rectified says that x came out of a ReLU: its gradient is zero where x is
	// not positive.
	Rectified bool
}

// Scratch returns the float32 values of scratch that both passes of at most n
// records need, with any set and at most the given number of threads.
// consumed says that the gradient of the weights is.
func (g Dense) Scratch(n, threads int, consumed bool) int64 {
	return max(g.genericScratch(consumed), g.fmaScratch(n, threads, consumed))
}

// AdamFactors are the constants of one Adam step.
type AdamFactors struct {
	Alpha   float32 // learning rate, corrected for the moments' start at zero
	Decay1  float32 // 1 - beta1
	Decay2  float32 // 1 - beta2
	Epsilon float32
}

// Generic returns the portable set "generic-1", plain Go. Its arithmetic is
// stated in the package's documentation.
func Generic() Set {
	return Set{
		Name:        "generic-1",
		Convert:     convert,
		ConvForward: convForward,
		ConvBackward: func(g Conv, n int, x, w []float32, arg []uint8, dy []float32, grad Gradient, dx, scratch []float32) {
			grad.start()
			convBackward(g, n, x, w, arg, dy, grad.W, grad.Bias, dx, scratch)
		},
		DenseForward:        func(g Dense, n int, x, w, bias, y, _ []float32) { denseForward(g, n, x, w, bias, y) },
		DenseBackward:       denseGradient,
		JointForward:        jointForward,
		JointBackward:       jointBackward,
		AddResidual:         AddResidual,
		MaskResidual:        MaskResidual,
		AddResidualGradient: AddResidualGradient,

		NormStatistics: NormStatistics,
		NormForward:    NormForward,
		NormBackward:   NormBackward,
		Adam:           adam,
		Finite:         Finite,
	}
}

// start clears the sums at the first call.
func (g Gradient) start() {
	if g.First {
		clear(g.W)
		clear(g.Bias)
	}
}
