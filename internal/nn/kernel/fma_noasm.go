// SPDX-License-Identifier: Apache-2.0

//go:build !amd64 || noasm

package kernel

func assembled() bool { return false }

func assembled512() bool { return false }

func (v vector) enter() (before uint32) { return 0 }

func (v vector) leave(uint32) {}

func (v vector) pause() {}

func (v vector) resume() {}

// Without assembly vector is plainGo, so these are never called.

func peakLanes() int { return 0 }

func peak8(rounds int) { panic(noAssembly) }

func peak16(rounds int) { panic(noAssembly) }

func tile1x16(p *product) { panic(noAssembly) }

func tile2x16(p *product) { panic(noAssembly) }

func tile3x16(p *product) { panic(noAssembly) }

func tile4x16(p *product) { panic(noAssembly) }

func tile5x16(p *product) { panic(noAssembly) }

func tile6x16(p *product) { panic(noAssembly) }

func tile1x16Masked(p *product) { panic(noAssembly) }

func tile2x16Masked(p *product) { panic(noAssembly) }

func tile3x16Masked(p *product) { panic(noAssembly) }

func tile4x16Masked(p *product) { panic(noAssembly) }

func tile5x16Masked(p *product) { panic(noAssembly) }

func tile6x16Masked(p *product) { panic(noAssembly) }

func convPool1x16(p *pooling) { panic(noAssembly) }

func convMax1x16(p *pooling) { panic(noAssembly) }

func convPool2x8(p *pooling) { panic(noAssembly) }

func convMax2x8(p *pooling) { panic(noAssembly) }

func convPool1x8(p *pooling) { panic(noAssembly) }

func convMax1x8(p *pooling) { panic(noAssembly) }

func convGradient3x3(p *tap) { panic(noAssembly) }

func transpose8(dst *float32, rowDst int, src *float32, rowSrc, n int) { panic(noAssembly) }

func neighbours(p *tables) { panic(noAssembly) }

func addScaledFMA(dst *float32, rowDst int, src *float32, rowSrc, rows, cols int, v float32, mask *int32) {
	panic(noAssembly)
}

func windowFMA(p *window, rows, vectors int) { panic(noAssembly) }

func adamFMA(w, d, m, v *float32, n int, k *[4]float32) { panic(noAssembly) }

func convertFMA(p *box) { panic(noAssembly) }

func addSettledFMA(dst, src *float32, n int, sign uint32) { panic(noAssembly) }

func addFMA(dst, src *float32, n int) { panic(noAssembly) }

func rectifyFMA(v *float32, n int) { panic(noAssembly) }

func rectifiedFMA(dst, d, x *float32, n int) { panic(noAssembly) }

func specialFMA(v *float32, n int) (special bool) { panic(noAssembly) }

func normSum(x *float32, step, n int, sum *float64) {
	panic(noAssembly)
}

func normSquare(x *float32, step, n int, center, sum *float64) {
	panic(noAssembly)
}

func normProduct(x *float32, stepX int, d *float32, stepD, n int, center, sum, product *float64) {
	panic(noAssembly)
}

func normScale(y, x, mean, scale, beta *float32, channels, pixels int, mask uint32, least float32) {
	panic(noAssembly)
}

func normGradient(dx, x, d, mean, shift, slope, scale *float32, channels, pixels int, open int32, least float32) {
	panic(noAssembly)
}

func poolRow2(y *float32, x *float32, row int, arg *uint8, channels, pixels int, mask uint32, least float32) {
	panic(noAssembly)
}

func unpoolRow2(d *float32, dst *float32, row int, arg *uint8, channels, pixels int) {
	panic(noAssembly)
}

func pickRow2(dst *float32, x *float32, row int, arg *uint8, channels, pixels int) {
	panic(noAssembly)
}

func tile512(p *product) { panic(noAssembly) }

func convPool512(p *pooling) { panic(noAssembly) }

func convGradient3x3x16(p *tap) { panic(noAssembly) }

func convGradient3x3x32(p *tap) { panic(noAssembly) }

func neighbours512(p *tables) { panic(noAssembly) }

func addScaled512(dst *float32, rowDst int, src *float32, rowSrc, rows, cols int, v float32) {
	panic(noAssembly)
}

func adam512(w, d, m, v *float32, n int, k *[4]float32) { panic(noAssembly) }

func convert512(p *box) { panic(noAssembly) }

func add512(dst, src *float32, n int) { panic(noAssembly) }

func rectify512(v *float32, n int) { panic(noAssembly) }

func rectified512(dst, d, x *float32, n int) { panic(noAssembly) }

const noAssembly = "BUG: there is no assembly in this program"
