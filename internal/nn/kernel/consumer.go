// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"sync/atomic"
	"unsafe"
)

// Consumer takes the gradient of a tensor piece by piece, as soon as a piece is
// complete and nothing needs its old weights any more, and changes the weights by it.
// So the gradient is nowhere whole.
type Consumer struct {
	// Update changes weights by gradients and moments. It is called at once on
	// several threads, for pieces that do not overlap.
	Update func(w, g, m, v []float32)
	// The tensor and its moments, nil where there are none.
	W, M, V []float32
	// Special says that a piece was infinite or NaN. It was not used.
	Special atomic.Bool
}

// take takes the piece that starts with element at.
func (c *Consumer) take(k vector, at int, g []float32) {
	if !k.finite(g) {
		c.Special.Store(true)
		return
	}
	k.pause()
	c.Update(c.W[at:][:len(g)], g, piece(c.M, at, len(g)), piece(c.V, at, len(g)))
	k.resume()
}

func piece(v []float32, at, n int) []float32 {
	if v == nil {
		return nil
	}
	return v[at:][:n]
}

// bytesOf views values as bytes.
func bytesOf(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}
