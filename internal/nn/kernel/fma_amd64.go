// SPDX-License-Identifier: Apache-2.0

//go:build !noasm

package kernel

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

//go:generate go run ./_gen -form avx2 -out fma_amd64.s

// assembled says whether this processor can run the assembly.
func assembled() bool { return cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasOSXSAVE }

// flushing are the bits of MXCSR that flush results to zero and take denormal
// numbers as zero.
const flushing = 1<<15 | 1<<6

// enter makes the rounding rule the processor's until leave. MXCSR belongs to
// the operating system's thread, so the goroutine is locked to it: preempted, it
// parks together with its thread, no other goroutine runs there, signal handlers
// get a fresh MXCSR, and new threads come from another one. To block or yield in
// between would be slow.
func (v vector) enter() (before uint32) {
	if v != plainGo {
		runtime.LockOSThread()
		before = control()
		setControl(before | flushing)
	}
	return before
}

// leave undoes enter.
func (v vector) leave(before uint32) {
	if v != plainGo {
		setControl(before)
		runtime.UnlockOSThread()
	}
}

// pause makes the rounding rule Go's until resume.
func (v vector) pause() {
	if v != plainGo {
		setControl(control() &^ flushing)
	}
}

func (v vector) resume() {
	if v != plainGo {
		setControl(control() | flushing)
	}
}

// For all of these plain Go in this package is the reference: product.plain,
// pooling.plain, tap.plain and the loops in the methods of vector.

//go:noescape
func tile1x16(p *product)

//go:noescape
func tile2x16(p *product)

//go:noescape
func tile3x16(p *product)

//go:noescape
func tile4x16(p *product)

//go:noescape
func tile5x16(p *product)

//go:noescape
func tile6x16(p *product)

//go:noescape
func tile1x16Masked(p *product)

//go:noescape
func tile2x16Masked(p *product)

//go:noescape
func tile3x16Masked(p *product)

//go:noescape
func tile4x16Masked(p *product)

//go:noescape
func tile5x16Masked(p *product)

//go:noescape
func tile6x16Masked(p *product)

//go:noescape
func convPool1x16(p *pooling)

//go:noescape
func convMax1x16(p *pooling)

//go:noescape
func convPool2x8(p *pooling)

//go:noescape
func convMax2x8(p *pooling)

//go:noescape
func convPool1x8(p *pooling)

//go:noescape
func convMax1x8(p *pooling)

//go:noescape
func convGradient3x3(p *tap)

//go:noescape
func transpose8(dst *float32, rowDst int, src *float32, rowSrc, n int)

//go:noescape
func neighbours(p *tables)

//go:noescape
func addScaledFMA(dst *float32, rowDst int, src *float32, rowSrc, rows, cols int, v float32, mask *int32)

// windowFMA does some rows, whose columns fill some vectors.
func windowFMA(p *window, rows, vectors int) {
	switch (windowSize{rows, vectors}) {
	case windowSize{1, 1}:
		window1x1(p)
	case windowSize{2, 1}:
		window2x1(p)
	case windowSize{3, 1}:
		window3x1(p)
	case windowSize{4, 1}:
		window4x1(p)
	case windowSize{5, 1}:
		window5x1(p)
	case windowSize{1, 2}:
		window1x2(p)
	case windowSize{2, 2}:
		window2x2(p)
	case windowSize{3, 2}:
		window3x2(p)
	case windowSize{4, 2}:
		window4x2(p)
	case windowSize{1, 3}:
		window1x3(p)
	case windowSize{2, 3}:
		window2x3(p)
	case windowSize{1, 4}:
		window1x4(p)
	case windowSize{2, 4}:
		window2x4(p)
	default:
		panic("BUG: no assembly for so many rows and vectors of a window")
	}
}

type windowSize struct{ rows, vectors int }

//go:noescape
func window1x1(p *window)

//go:noescape
func window2x1(p *window)

//go:noescape
func window3x1(p *window)

//go:noescape
func window4x1(p *window)

//go:noescape
func window5x1(p *window)

//go:noescape
func window1x2(p *window)

//go:noescape
func window2x2(p *window)

//go:noescape
func window3x2(p *window)

//go:noescape
func window4x2(p *window)

//go:noescape
func window1x3(p *window)

//go:noescape
func window2x3(p *window)

//go:noescape
func window1x4(p *window)

//go:noescape
func window2x4(p *window)

//go:noescape
func adamFMA(w, d, m, v *float32, n int, k *[4]float32)

//go:noescape
func convertFMA(p *box)

//go:noescape
func addSettledFMA(dst, src *float32, n int, sign uint32)

//go:noescape
func addFMA(dst, src *float32, n int)

//go:noescape
func rectifyFMA(v *float32, n int)

//go:noescape
func rectifiedFMA(dst, d, x *float32, n int)

//go:noescape
func specialFMA(v *float32, n int) (special bool)

//go:noescape
func normSum(x *float32, step, n int, sum *float64)

//go:noescape
func normSquare(x *float32, step, n int, center, sum *float64)

//go:noescape
func normProduct(x *float32, stepX int, d *float32, stepD, n int, center, sum, product *float64)

//go:noescape
func normScale(y, x, mean, scale, beta *float32, channels, pixels int, mask uint32, least float32)

//go:noescape
func normGradient(dx, x, d, mean, shift, slope, scale *float32, channels, pixels int, open int32, least float32)

//go:noescape
func poolRow2(y *float32, x *float32, row int, arg *uint8, channels, pixels int, mask uint32, least float32)

//go:noescape
func unpoolRow2(d *float32, dst *float32, row int, arg *uint8, channels, pixels int)

//go:noescape
func pickRow2(dst *float32, x *float32, row int, arg *uint8, channels, pixels int)

func setControl(v uint32)

func control() (v uint32)

func peak8(rounds int)

func peak16(rounds int)

// peakLanes is how many lanes the widest vectors of this processor have.
func peakLanes() int {
	switch {
	case cpu.X86.HasAVX512F:
		return 16
	case assembled():
		return 8
	}
	return 0
}
