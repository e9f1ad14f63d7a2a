// SPDX-License-Identifier: Apache-2.0

//go:build !noasm

package kernel

//go:generate go run ./_gen -form neon -out gemm_arm64.s

const (
	// lanes128 is the number of float32 in a register.
	lanes128 = 4
	// The most rows and vectors of a tile.
	rows128, vectors128 = 4, 4
)

// strided is what of accumulate one call of the assembly does: rows x 4*vectors
// results. Distances are in values.
type strided struct {
	a                 []float32
	row, outer, inner int
	outers, inners    int
	b                 []float32
	rowB              int
	c                 []float32
	rowC              int
	rows, vectors     int
}

// accumulateVectors does what of accumulate fills vectors, and returns the number of
// columns that it has done. tile8, tile4 and tile1 are its reference.
func accumulateVectors(m, n, outer, inner int, a factor, b []float32, rowB int, c []float32, rowC int) (done int) {
	done = n &^ (lanes128 - 1)
	if done == 0 || m == 0 {
		return 0
	}
	// What is read and written last.
	_ = a.data[(m-1)*a.row+(outer-1)*a.outer+(inner-1)*a.inner]
	_, _ = b[(outer*inner-1)*rowB+done-1], c[(m-1)*rowC+done-1]
	s := strided{row: a.row, outer: a.outer, inner: a.inner, outers: outer, inners: inner, rowB: rowB, rowC: rowC}
	for j := 0; j < done; j += s.vectors * lanes128 {
		s.vectors = min((done-j)/lanes128, vectors128)
		s.b = b[j:]
		for i := 0; i < m; i += s.rows {
			s.rows = min(m-i, rows128)
			s.a, s.c = a.data[i*a.row:], c[i*rowC+j:]
			strided128(&s)
		}
	}
	return done
}

//go:noescape
func strided128(p *strided)
