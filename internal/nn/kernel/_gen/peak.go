// SPDX-License-Identifier: Apache-2.0

package main

// peakChains is how many sums go on side by side: more than the latency of a
// fused multiply-add times the number of units that compute them.
const peakChains = 12

// peak computes in registers alone, to see how fast the processor can be.
func (g *gen) peak() {
	for _, v := range []struct{ name, register, zero string }{{"peak8", "Y", "VXORPS"}, {"peak16", "Z", "VPXORQ"}} {
		g.text("See Peak.", v.name, "rounds int", 0, 8)
		g.p("MOVQ rounds+0(FP), CX")
		for i := range peakChains + 2 {
			g.p("%s %[2]s%[3]d, %[2]s%[3]d, %[2]s%[3]d", v.zero, v.register, i)
		}
		g.p("round:")
		for i := range peakChains {
			g.p("VFMADD231PS %[1]s%[2]d, %[1]s%[3]d, %[1]s%[4]d", v.register, peakChains, peakChains+1, i)
		}
		g.p("DECQ CX\nJNZ round\nVZEROUPPER\nRET")
	}
}
