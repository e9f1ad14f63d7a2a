// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// norm writes the loops of batch normalisation. They run without flushing, as the
// plain ones do, and have their bits: nothing is fused, and sums are float64.
func (g *gen) norm() {
	g.normSums()
	g.normElements()
	g.pool()
}

// normSums writes sums over pixels for sixteen channels, four to a register.
func (g *gen) normSums() {
	each := func(format string) {
		for q := range 4 {
			g.p(format, q, 16*q, 32*q, 4+q, 8+q, 12+2*(q%2), 13+2*(q%2))
		}
	}
	g.text("normSum adds n pixels' values of sixteen channels to sum.",
		"normSum", "x *float32, step, n int, sum *float64", 0, 32)
	g.p(`
		MOVQ x+0(FP), SI
		MOVQ step+8(FP), R8
		SHLQ $2, R8
		MOVQ n+16(FP), CX
		MOVQ sum+24(FP), DX`)
	each("VMOVUPD %[3]d(DX), Y%[1]d")
	g.p("loop:")
	each("VCVTPS2PD %[2]d(SI), Y%[4]d\nVADDPD Y%[4]d, Y%[1]d, Y%[1]d")
	g.p("ADDQ R8, SI\nDECQ CX\nJNZ loop")
	each("VMOVUPD Y%[1]d, %[3]d(DX)")
	g.p("VZEROUPPER\nRET")

	g.text("normSquare adds the squares of their distances from center.",
		"normSquare", "x *float32, step, n int, center, sum *float64", 0, 40)
	g.p(`
		MOVQ x+0(FP), SI
		MOVQ step+8(FP), R8
		SHLQ $2, R8
		MOVQ n+16(FP), CX
		MOVQ center+24(FP), BX
		MOVQ sum+32(FP), DX`)
	each("VMOVUPD %[3]d(DX), Y%[1]d\nVMOVUPD %[3]d(BX), Y%[5]d")
	g.p("loop:")
	each("VCVTPS2PD %[2]d(SI), Y%[4]d\nVSUBPD Y%[5]d, Y%[4]d, Y%[4]d\nVMULPD Y%[4]d, Y%[4]d, Y%[4]d\nVADDPD Y%[4]d, Y%[1]d, Y%[1]d")
	g.p("ADDQ R8, SI\nDECQ CX\nJNZ loop")
	each("VMOVUPD Y%[1]d, %[3]d(DX)")
	g.p("VZEROUPPER\nRET")

	g.text(`normProduct adds n pixels' values of d, of sixteen channels, to sum, and their
products with x - center to product.`,
		"normProduct", "x *float32, stepX int, d *float32, stepD, n int, center, sum, product *float64", 0, 64)
	g.p(`
		MOVQ x+0(FP), SI
		MOVQ stepX+8(FP), R8
		SHLQ $2, R8
		MOVQ d+16(FP), DI
		MOVQ stepD+24(FP), R9
		SHLQ $2, R9
		MOVQ n+32(FP), CX
		MOVQ center+40(FP), BX
		MOVQ sum+48(FP), DX
		MOVQ product+56(FP), R10`)
	each("VMOVUPD %[3]d(DX), Y%[1]d\nVMOVUPD %[3]d(R10), Y%[4]d\nVMOVUPD %[3]d(BX), Y%[5]d")
	g.p("loop:")
	each(`
		VCVTPS2PD %[2]d(DI), Y%[6]d
		VADDPD Y%[6]d, Y%[1]d, Y%[1]d
		VCVTPS2PD %[2]d(SI), Y%[7]d
		VSUBPD Y%[5]d, Y%[7]d, Y%[7]d
		VMULPD Y%[7]d, Y%[6]d, Y%[6]d
		VADDPD Y%[6]d, Y%[4]d, Y%[4]d`)
	g.p("ADDQ R8, SI\nADDQ R9, DI\nDECQ CX\nJNZ loop")
	each("VMOVUPD Y%[1]d, %[3]d(DX)\nVMOVUPD Y%[4]d, %[3]d(R10)")
	g.p("VZEROUPPER\nRET")
}

// normElements writes the loops over pixels and, inside, over channels, a multiple
// of eight.
func (g *gen) normElements() {
	g.text(`normScale writes y = (x - mean) * scale + beta for pixels of channels values, and
+0 where that, under mask, is below least.`,
		"normScale", "y, x, mean, scale, beta *float32, channels, pixels int, mask uint32, least float32", 0, 64)
	g.p(`
		MOVQ y+0(FP), DI
		MOVQ x+8(FP), SI
		MOVQ mean+16(FP), R8
		MOVQ scale+24(FP), R9
		MOVQ beta+32(FP), R10
		MOVQ channels+40(FP), CX
		MOVQ pixels+48(FP), DX
		VBROADCASTSS mask+56(FP), Y15
		VBROADCASTSS least+60(FP), Y14
		pixel:
		XORQ AX, AX
		loop:
		VMOVUPS (SI)(AX*4), Y0
		VSUBPS (R8)(AX*4), Y0, Y0
		VMULPS (R9)(AX*4), Y0, Y0
		VADDPS (R10)(AX*4), Y0, Y0
		VANDPS Y15, Y0, Y1
		VCMPPS $0x15, Y14, Y1, Y1
		VANDPS Y1, Y0, Y0
		VMOVUPS Y0, (DI)(AX*4)
		ADDQ $8, AX
		CMPQ AX, CX
		JLT loop
		LEAQ (SI)(CX*4), SI
		LEAQ (DI)(CX*4), DI
		DECQ DX
		JNZ pixel
		VZEROUPPER
		RET`)

	g.text(`normGradient writes dx = (d - shift - (x-mean)*slope) * scale for pixels of channels
values; +0 where that is below least, and where x is not positive unless open is -1.`,
		"normGradient", "dx, x, d, mean, shift, slope, scale *float32, channels, pixels int, open int32, least float32", 0, 80)
	g.p(`
		MOVQ dx+0(FP), DI
		MOVQ x+8(FP), SI
		MOVQ d+16(FP), BX
		MOVQ mean+24(FP), R8
		MOVQ shift+32(FP), R9
		MOVQ slope+40(FP), R10
		MOVQ scale+48(FP), R11
		MOVQ channels+56(FP), CX
		MOVQ pixels+64(FP), DX
		VBROADCASTSS open+72(FP), Y13
		VBROADCASTSS least+76(FP), Y14
		VPCMPEQD Y15, Y15, Y15
		VPSRLD $1, Y15, Y15
		VXORPS Y12, Y12, Y12
		pixel:
		XORQ AX, AX
		loop:
		VMOVUPS (SI)(AX*4), Y0
		VSUBPS (R8)(AX*4), Y0, Y1
		VMULPS (R10)(AX*4), Y1, Y1
		VMOVUPS (BX)(AX*4), Y2
		VSUBPS (R9)(AX*4), Y2, Y2
		VSUBPS Y1, Y2, Y2
		VMULPS (R11)(AX*4), Y2, Y2
		VCMPPS $0x1e, Y12, Y0, Y3
		VORPS Y13, Y3, Y3
		VANDPS Y3, Y2, Y2
		VANDPS Y15, Y2, Y1
		VCMPPS $0x15, Y14, Y1, Y1
		VANDPS Y1, Y2, Y2
		VMOVUPS Y2, (DI)(AX*4)
		ADDQ $8, AX
		CMPQ AX, CX
		JLT loop
		LEAQ (SI)(CX*4), SI
		LEAQ (BX)(CX*4), BX
		LEAQ (DI)(CX*4), DI
		DECQ DX
		JNZ pixel
		VZEROUPPER
		RET`)
}

// places leaves 1, 2 and 3 in Y13, Y14 and Y15.
func (g *gen) places() {
	g.p(`
		VPCMPEQD Y13, Y13, Y13
		VPSRLD $31, Y13, Y13
		VPADDD Y13, Y13, Y14
		VPADDD Y13, Y14, Y15`)
}

// pool writes what has to do with windows of 2x2 pixels, the channels a multiple of
// eight. Place k of a window is in operand k.
func (g *gen) pool() {
	operands := []string{"(SI)(AX*4)", "(R8)(AX*4)", "(BX)(AX*4)", "(R9)(AX*4)"}
	// next moves them on by two pixels.
	next := func() {
		g.p(`
			LEAQ (SI)(CX*8), SI
			LEAQ (R8)(CX*8), R8
			LEAQ (BX)(CX*8), BX
			LEAQ (R9)(CX*8), R9`)
	}
	start := func(row string) {
		g.p(`
			MOVQ channels+32(FP), CX
			LEAQ (SI)(CX*4), R8
			%s
			LEAQ (BX)(CX*4), R9
			MOVQ pixels+40(FP), DX`, row)
	}

	g.text(`poolRow2 writes pixels maxima of windows of x, whose rows lie row values apart, and
their places; +0 where a maximum, under mask, is below least.`,
		"poolRow2", "y *float32, x *float32, row int, arg *uint8, channels, pixels int, mask uint32, least float32", 0, 56)
	g.p(`
		MOVQ y+0(FP), DI
		MOVQ x+8(FP), SI
		MOVQ row+16(FP), R10
		MOVQ arg+24(FP), R11`)
	start("LEAQ (SI)(R10*4), BX")
	g.p("VBROADCASTSS mask+48(FP), Y11\nVBROADCASTSS least+52(FP), Y12")
	g.places()
	g.p("pixel:\nXORQ AX, AX\nloop:\nVMOVUPS %s, Y0\nVPXOR Y1, Y1, Y1", operands[0])
	for k := 1; k < 4; k++ {
		g.p(`
			VMOVUPS %s, Y2
			VCMPPS $0x1e, Y0, Y2, Y3
			VCMPPS $0x03, Y2, Y2, Y4
			VORPS Y4, Y3, Y3
			VBLENDVPS Y3, Y2, Y0, Y0
			VBLENDVPS Y3, Y%d, Y1, Y1`, operands[k], 12+k)
	}
	g.p(`
		VANDPS Y11, Y0, Y2
		VCMPPS $0x15, Y12, Y2, Y2
		VANDPS Y2, Y0, Y0
		VMOVUPS Y0, (DI)(AX*4)
		VPACKSSDW Y1, Y1, Y1
		VPACKUSWB Y1, Y1, Y1
		VEXTRACTI128 $1, Y1, X2
		VPUNPCKLDQ X2, X1, X1
		VMOVQ X1, (R11)(AX*1)
		ADDQ $8, AX
		CMPQ AX, CX
		JLT loop`)
	next()
	g.p(`
		LEAQ (DI)(CX*4), DI
		ADDQ CX, R11
		DECQ DX
		JNZ pixel
		VZEROUPPER
		RET`)

	g.text(`unpoolRow2 writes windows to dst, whose rows lie row values apart: d at the place
that arg says, else +0.`,
		"unpoolRow2", "d *float32, dst *float32, row int, arg *uint8, channels, pixels int", 0, 48)
	g.p(`
		MOVQ d+0(FP), DI
		MOVQ dst+8(FP), SI
		MOVQ row+16(FP), R10
		MOVQ arg+24(FP), R11`)
	start("LEAQ (SI)(R10*4), BX")
	g.places()
	g.p("VPXOR Y12, Y12, Y12\npixel:\nXORQ AX, AX\nloop:\nVPMOVZXBD (R11)(AX*1), Y0\nVMOVUPS (DI)(AX*4), Y1")
	for k := range 4 {
		g.p("VPCMPEQD Y%d, Y0, Y2\nVANDPS Y1, Y2, Y2\nVMOVUPS Y2, %s", 12+k, operands[k])
	}
	g.p("ADDQ $8, AX\nCMPQ AX, CX\nJLT loop")
	next()
	g.p(`
		LEAQ (DI)(CX*4), DI
		ADDQ CX, R11
		DECQ DX
		JNZ pixel
		VZEROUPPER
		RET`)

	g.text(`pickRow2 writes for pixels windows of x, whose rows lie row values apart, the values
of sixteen of their channels at the places that arg says.`,
		"pickRow2", "dst *float32, x *float32, row int, arg *uint8, channels, pixels int", 0, 48)
	g.p(`
		MOVQ dst+0(FP), DI
		MOVQ x+8(FP), SI
		MOVQ row+16(FP), R10
		MOVQ arg+24(FP), R11`)
	start("LEAQ (SI)(R10*4), BX")
	g.places()
	g.p("pixel:")
	for half := range 2 {
		at := func(base string) string { return fmt.Sprintf("%d(%s)", 32*half, base) }
		g.p("VPMOVZXBD %d(R11), Y0\nVMOVUPS %s, Y1", 8*half, at("SI"))
		for k, base := range []string{"R8", "BX", "R9"} {
			g.p("VMOVUPS %s, Y2\nVPCMPEQD Y%d, Y0, Y3\nVBLENDVPS Y3, Y2, Y1, Y1", at(base), 13+k)
		}
		g.p("VMOVUPS Y1, %s", at("DI"))
	}
	next()
	g.p(`
		ADDQ $64, DI
		ADDQ CX, R11
		DECQ DX
		JNZ pixel
		VZEROUPPER
		RET`)
}
