// SPDX-License-Identifier: Apache-2.0

//go:build !noasm

package kernel

import "golang.org/x/sys/cpu"

//go:generate go run ./_gen -form avx512 -out fma512_amd64.s

// assembled512 says whether this processor can run the assembly with vectors of
// sixteen.
func assembled512() bool {
	return assembled() && cpu.X86.HasAVX512F
}

// For these, too, plain Go is the reference.

//go:noescape
func tile512(p *product)

//go:noescape
func convPool512(p *pooling)

//go:noescape
func convGradient3x3x16(p *tap)

//go:noescape
func convGradient3x3x32(p *tap)

//go:noescape
func neighbours512(p *tables)

//go:noescape
func addScaled512(dst *float32, rowDst int, src *float32, rowSrc, rows, cols int, v float32)

//go:noescape
func adam512(w, d, m, v *float32, n int, k *[4]float32)

//go:noescape
func convert512(p *box)

//go:noescape
func add512(dst, src *float32, n int)

//go:noescape
func rectify512(v *float32, n int)

//go:noescape
func rectified512(dst, d, x *float32, n int)
