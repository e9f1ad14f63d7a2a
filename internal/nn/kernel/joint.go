// SPDX-License-Identifier: Apache-2.0

package kernel

// Joint is the geometry of a first convolution and of the dense layer that reads its
// output, flattened. Together they can be computed by ranges of pixels, so that what
// belongs to a range stays near one processor: values, weights and moments.
type Joint struct {
	Conv  Conv
	Dense Dense
}

// JointData is what both passes read and write.
type JointData struct {
	X                   Input
	ConvW, ConvBias     []float32
	DenseW, DenseBias   []float32
	Mid                 []float32 // the convolution's output, in the set's own layout; nil if there is no backward pass
	Arg                 []uint8   // places of its maxima, likewise
	Y                   []float32 // the dense layer's output, and its gradient in the backward pass
	ConvGrad, DenseGrad Gradient
	Scratch             []float32
}

const (
	// nearRecords is how many records of a range are made ready at a time: so few
	// that they are still in the nearest cache when they are used.
	nearRecords = 8
	// plainRecords is the same of generic-1, whose memory every set is given.
	plainRecords = 2
	// inferRecords is how many records of a range there are at a time where nothing
	// is kept for a backward pass.
	inferRecords = 64
)

// Scratch returns the float32 values of scratch for at most n records, with any set
// and at most the given number of threads.
func (j Joint) Scratch(n, threads int, train, consumed bool) int64 {
	return max(j.genericScratch(n, train, consumed), j.fmaScratch(n, threads, train, consumed))
}

// genericScratch is that of generic-1: some records as float32; and the convolution's
// output of those if it is not kept.
func (j Joint) genericScratch(n int, train, consumed bool) int64 {
	n = min(n, plainRecords)
	own := j.Conv.ForwardScratch()
	if train {
		own = max(own, j.Conv.BackwardScratch(false))
	} else {
		own += int64(n * (j.Dense.In + (j.Dense.In+3)/4))
	}
	return max(int64(n*j.Conv.H*j.Conv.W*j.Conv.C)+own, j.Dense.genericScratch(consumed))
}

// values returns n records of x as float32.
func (x Input) values(n, size int, scratch []float32) []float32 {
	if x.Values != nil {
		return x.Values[:n*size]
	}
	convert(scratch[:n*size], x.Pixels[:n*size], x.Scale)
	return scratch[:n*size]
}

func jointForward(j Joint, n int, d *JointData) {
	g, size := j.Conv, j.Conv.H*j.Conv.W*j.Conv.C
	for r := 0; r < n; r += plainRecords {
		m := min(plainRecords, n-r)
		scratch := d.Scratch
		x := d.X.from(r, size).values(m, size, scratch)
		scratch = scratch[m*size:]
		var mid []float32
		var arg []uint8
		if d.Mid != nil {
			mid, arg = d.Mid[r*j.Dense.In:], d.Arg
			if g.Pool > 1 {
				arg = arg[r*j.Dense.In:]
			}
		} else {
			all := m * j.Dense.In
			mid, arg, scratch = scratch[:all], bytesOf(scratch[all:][:(all+3)/4]), scratch[all+(all+3)/4:]
		}
		convForward(g, m, x, d.ConvW, d.ConvBias, mid, arg, scratch)
		denseForward(j.Dense, m, mid, d.DenseW, d.DenseBias, d.Y[r*j.Dense.Out:])
	}
}

func jointBackward(j Joint, n int, d *JointData) {
	g, size := j.Conv, j.Conv.H*j.Conv.W*j.Conv.C
	denseGradient(j.Dense, n, d.Mid, d.DenseW, d.Y, d.DenseGrad, d.Mid, d.Scratch)
	d.ConvGrad.start()
	for r := 0; r < n; r += plainRecords {
		m := min(plainRecords, n-r)
		x := d.X.from(r, size).values(m, size, d.Scratch)
		arg := d.Arg
		if g.Pool > 1 {
			arg = arg[r*j.Dense.In:]
		}
		convBackward(g, m, x, d.ConvW, arg, d.Mid[r*j.Dense.In:], d.ConvGrad.W, d.ConvGrad.Bias, nil, d.Scratch[m*size:])
	}
}
