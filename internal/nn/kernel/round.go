// SPDX-License-Identifier: Apache-2.0

package kernel

import "math"

// The rounding rule of fma-1, in plain Go: to nearest even, one rounding an
// operation, and nothing below the smallest normal number, neither read nor
// written. It is what an x86 processor does with flush-to-zero and
// denormals-are-zero set, and these functions give the same bits whether they
// are set or not.

// leastRounded is the least magnitude that rounds to 2^-126 when it is rounded
// to 24 bits as if the exponent had no lower bound: half a step below.
const leastRounded = 0x1p-126 - 0x1p-151

// normal replaces a number below the normal ones by a zero of its sign.
func normal(v float32) float32 {
	if v < minNormal && v > -minNormal {
		return math.Float32frombits(math.Float32bits(v) & (1 << 31))
	}
	return v
}

// narrow rounds a result to float32. s must be exact, or no float64 that lies in
// the middle between two numbers of 24 bits.
func narrow(s float64) float32 {
	if s < leastRounded && s > -leastRounded {
		return float32(math.Copysign(0, s))
	}
	return float32(s)
}

// fma32 returns a*b + c, rounded once.
func fma32(a, b, c float32) float32 {
	// The product of two numbers of 24 bits is exact.
	p, q := float64(normal(a))*float64(normal(b)), float64(normal(c))
	s := p + q
	// Rounding s again is right unless s lies in the middle between two numbers
	// of 24 bits, which differ in bit 29 of the float64, and is not exact. Then
	// the next float64 in the direction of the error is on the right side.
	if math.Float64bits(s)&(1<<29-1) == 1<<28 {
		// The error of the sum, exact (Knuth).
		t := s - p
		if e := (p - (s - t)) + (q - t); e > 0 {
			s = math.Nextafter(s, math.Inf(1))
		} else if e < 0 {
			s = math.Nextafter(s, math.Inf(-1))
		}
	}
	return narrow(s)
}

// mul32 returns a*b.
func mul32(a, b float32) float32 { return narrow(float64(normal(a)) * float64(normal(b))) }

// add32 returns a+b. A sum below the normal numbers is exact, so it may be
// rounded first. This is so for differences too.
func add32(a, b float32) float32 { return normal(normal(a) + normal(b)) }

// sub32 returns a-b.
func sub32(a, b float32) float32 { return normal(normal(a) - normal(b)) }

// div32 returns a/b. A quotient is never so close to the middle between two
// numbers of 24 bits that its float64 is that middle, unless it is exact.
func div32(a, b float32) float32 { return narrow(float64(normal(a)) / float64(normal(b))) }

// sqrt32 returns the square root of v; the same holds for it.
func sqrt32(v float32) float32 { return float32(math.Sqrt(float64(normal(v)))) }
