// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Boxes of bytes become the reference's bits, whatever their sizes and the distances
// of rows and records, and nothing else is written.
func TestBoxesMatchReference(t *testing.T) {
	variants := variants(t)
	r := rand.New(rand.NewPCG(3, 3))
	for cols := 0; cols <= 257; cols++ {
		rows, records := 1+r.IntN(4), 1+r.IntN(3)
		b := box{cols: cols, rows: rows, records: records, scale: []float32{1.0 / 255, 1, 0x1p-133}[cols%3]}
		b.rowDst, b.rowSrc = cols+r.IntN(9), cols+r.IntN(9)
		b.recordDst, b.recordSrc = rows*b.rowDst+r.IntN(9), rows*b.rowSrc+r.IntN(9)
		src := make([]byte, records*b.recordSrc)
		for i := range src {
			src[i] = byte(r.Uint32())
		}
		old := wide(r, records*b.recordDst, true)
		run := func(v vector) []float32 {
			var alive func() bool
			c := b
			c.dst, alive = guarded(old, r.IntN(8))
			c.bytes, _ = guarded(src, r.IntN(8))
			before := v.enter()
			c.convert(v)
			v.leave(before)
			if !alive() {
				t.Fatalf("%d columns: a value outside was written", cols)
			}
			return c.dst
		}
		want := run(plainGo)
		for name, v := range variants {
			equal(t, fmt.Sprintf("%s, %d x %d x %d", name, records, rows, cols), run(v), want)
		}
	}
}

// Tables have every pixel's neighbours.
func TestTablesMatchReference(t *testing.T) {
	variants := variants(t)
	r := rand.New(rand.NewPCG(4, 4))
	for entries := 1; entries <= 257; entries++ {
		x := tables{step: 1 + entries%4, entries: entries, rows: 1 + r.IntN(4), records: 1 + r.IntN(3)}
		x.row = (entries+1)*x.step + r.IntN(5)
		x.record = (x.rows+1)*x.row + r.IntN(5)
		src := wide(r, x.records*x.record, true)
		old := make([]float32, 4*x.records*x.rows*entries)
		run := func(v vector) []float32 {
			y := x
			var alive func() bool
			y.dst, alive = guarded(old, r.IntN(8))
			y.src, _ = guarded(src, r.IntN(8))
			y.run(v)
			if !alive() {
				t.Fatalf("%d entries: a value outside was written", entries)
			}
			return y.dst
		}
		want := run(plainGo)
		for name, v := range variants {
			equal(t, fmt.Sprintf("%s, %+v", name, x), run(v), want)
		}
	}
}

func FuzzJoint(f *testing.F) {
	singles := singles(f)
	f.Add(uint64(1), uint8(28), uint8(28), uint8(1), uint8(3), uint8(32), uint8(2), uint8(2))
	f.Add(uint64(2), uint8(7), uint8(9), uint8(3), uint8(2), uint8(5), uint8(3), uint8(3))
	f.Add(uint64(3), uint8(5), uint8(30), uint8(2), uint8(5), uint8(20), uint8(2), uint8(9))
	f.Fuzz(func(t *testing.T, seed uint64, h, w, c, k, filters, pool, n uint8) {
		g := Conv{
			H: 1 + int(h)%30, W: 1 + int(w)%30, C: 1 + int(c)%4, K: 1 + int(k)%6, F: 1 + int(filters)%40, Pool: 1 + int(pool)%4, ReLU: seed%2 == 0,
		}
		if outH, outW := g.Out(); g.K > g.H || g.K > g.W || outH < 1 || outW < 1 || outH*outW == 1 {
			return
		}
		j, records := jointOf(g, 1+int(seed>>8)%40, seed%3 == 0), 1+int(n)%12
		in, scratch := newJoined(rand.New(rand.NewPCG(seed, 1)), j, records, 1)
		want := in.copy()
		d := want.data(scratch)
		FMAReference().JointForward(j, records, d)
		y := append([]float32(nil), d.Y...)
		copy(d.Y, in.dense.dy)
		FMAReference().JointBackward(j, records, d)
		want.dense.y = y
		for name, set := range singles {
			got := joined{in.conv.guard(t, int(seed%8)), in.dense.guard(t, int(seed/8%8))}
			what := fmt.Sprintf("%s, %+v", name, j)
			got.both(t, what, set, j, records, got.data(scratch), want)
			sameJoined(t, what, got, want)
		}
	})
}
