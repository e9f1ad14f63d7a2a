// SPDX-License-Identifier: Apache-2.0

package nn

import "sort"

// alignment of every buffer in the arena, in bytes: a cache line, and the width
// of the widest vector.
const alignment = 64

// align rounds up to a multiple of the alignment.
func align(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }

// buffer is a range of the arena that is needed from one operation to another,
// both included.
type buffer struct {
	bytes       int64
	first, last int
	offset      int64 // from the start of the activations, set by place
}

// use extends the buffer's life to operation t.
func (b *buffer) use(t int) { b.last = max(b.last, t) }

// place gives every buffer an offset, so that no two whose lives meet overlap,
// and returns the bytes that all of them take. With share false no two overlap
// at all. The largest are placed first, each in the lowest gap that fits: not
// always the least total, but exact and the same every time.
func place(buffers []*buffer, share bool) int64 {
	order := append([]*buffer(nil), buffers...)
	sort.SliceStable(order, func(i, j int) bool { return order[i].bytes > order[j].bytes })
	var total int64
	var placed []*buffer // by offset
	for _, b := range order {
		b.offset = 0
		for _, o := range placed {
			if share && (o.last < b.first || b.last < o.first) {
				continue
			}
			if b.offset+b.bytes <= o.offset {
				break // the gap before o is enough
			}
			b.offset = max(b.offset, align(o.offset+o.bytes))
		}
		total = max(total, align(b.offset+b.bytes))
		placed = append(placed, b)
		sort.SliceStable(placed, func(i, j int) bool { return placed[i].offset < placed[j].offset })
	}
	return total
}
