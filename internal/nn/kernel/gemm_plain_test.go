// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"disdel/internal/points"
)

// sameAccumulate compares accumulate with plain Go, between canaries.
func sameAccumulate(t *testing.T, r *rand.Rand, m, n, outer, inner int) {
	t.Helper()
	a := factor{row: r.IntN(30), outer: r.IntN(30), inner: 1 + r.IntN(3)}
	values := wide(r, max(m-1, 0)*a.row+max(outer-1, 0)*a.outer+max(inner-1, 0)*a.inner+1, r.IntN(2) > 0)
	rowB, rowC := n+r.IntN(3), n+r.IntN(3)
	b, c := wide(r, outer*inner*rowB, r.IntN(2) > 0), wide(r, m*rowC, false)
	want := slices.Clone(c)
	a.data = values
	accumulatePlain(m, n, 0, outer, inner, a, b, rowB, want, rowC)
	odd := r.IntN(8)
	a.data, _ = guarded(values, odd)
	b, _ = guarded(b, odd)
	got, alive := guarded(c, odd)
	accumulate(m, n, outer, inner, a, b, rowB, got, rowC)
	what := fmt.Sprintf("%d x %d x %d x %d", m, n, outer, inner)
	equal(t, what, got, want)
	if !alive() {
		t.Fatalf("%s: a value outside was written", what)
	}
}

// Whatever computes generic-1 on this processor has the bits of plain Go: for every
// length, numbers of all sizes, infinities and NaN.
func TestAccumulateMatchesPlainGo(t *testing.T) {
	for n := 0; n < 258; n += min(points.Stride, 7) {
		r := rand.New(rand.NewPCG(uint64(n), 23))
		for m := range 10 {
			sameAccumulate(t, r, m, n, 1+r.IntN(3), 1+r.IntN(9))
		}
	}
}

func FuzzAccumulate(f *testing.F) {
	f.Add(uint64(1), uint8(4), uint16(64), uint8(1), uint8(128))
	f.Add(uint64(2), uint8(26), uint16(32), uint8(3), uint8(3))
	f.Add(uint64(3), uint8(1), uint16(7), uint8(2), uint8(1))
	f.Fuzz(func(t *testing.T, seed uint64, m uint8, n uint16, outer, inner uint8) {
		sameAccumulate(t, rand.New(rand.NewPCG(seed, 1)), int(m)%40, int(n)%300, 1+int(outer)%6, 1+int(inner)%140)
	})
}
