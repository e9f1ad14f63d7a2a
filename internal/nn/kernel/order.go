// SPDX-License-Identifier: Apache-2.0

package kernel

// The order of sums of fma-1, where it depends on the geometry. Both cuts below
// lie between halves of rows of an activation map, so that a pass over ranges of
// such halves can do all that belongs to a range, and the bits of every result
// are those of passes that do one layer after the other.

const (
	// groups is how often the sums of a dense layer are restarted.
	groups = 4
	// partialLimit bounds the values of all partial sums of the gradient of one
	// convolution's parameters.
	partialLimit = 1 << 15
)

// halfRow returns the row and the columns [from, to) of half h of the rows of a
// map that is cols wide. The second half is the longer one.
func halfRow(h, cols int) (row, from, to int) {
	if h%2 == 0 {
		return h / 2, 0, cols / 2
	}
	return h / 2, cols / 2, cols
}

// cut returns where group i of the sums of a dense layer starts: inputs
// [cut(i), cut(i+1)) are one chain. Some may be empty.
func (g Dense) cut(i int) int {
	if g.Rows*g.Cols <= 1 {
		return min(i, 1) * g.In
	}
	row, from, _ := halfRow(2*g.Rows*i/groups, g.Cols)
	return (row*g.Cols + from) * (g.In / (g.Rows * g.Cols))
}

// segments returns into how many segments the output is divided. The gradient
// of the parameters is one partial sum for each.
func (g Conv) segments() int {
	rows, _ := g.Out()
	return max(1, min(2*rows, partialLimit/g.parameters()))
}

// parameters returns the number of weights and biases.
func (g Conv) parameters() int { return (g.weights() + 1) * g.F }

// segment returns the halves of rows [from, to) that are segment i.
func (g Conv) segment(i int) (from, to int) {
	rows, _ := g.Out()
	n := g.segments()
	return i * 2 * rows / n, (i + 1) * 2 * rows / n
}

// run is a part of a row of an activation map.
type run struct{ row, from, to int }

// next returns the longest run that starts with half at and does not reach half
// end, and the half after it.
func nextRun(at, end, cols int) (r run, after int) {
	r.row, r.from, r.to = halfRow(at, cols)
	if at++; at < end && at%2 == 1 {
		_, _, r.to = halfRow(at, cols)
		at++
	}
	return r, at
}
