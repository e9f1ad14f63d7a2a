// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"disdel/internal/points"
)

// exactly rounds an exact result by the rule: to 24 bits, to nearest even, with
// no lower bound of the exponent; then to zero below 2^-126, to infinity above
// the largest float32.
func exactly(v *big.Float, zero float32) float32 {
	if v.Sign() == 0 {
		return zero
	}
	r := new(big.Float).SetPrec(24).SetMode(big.ToNearestEven).Set(v)
	sign := 1.0
	if v.Signbit() {
		sign = -1
	}
	if r.MantExp(nil) <= -126 { // the mantissa is in [0.5, 1)
		return float32(math.Copysign(0, sign))
	}
	f, _ := r.Float32()
	return f
}

func exact(v float32) *big.Float { return new(big.Float).SetPrec(2000).SetFloat64(float64(v)) }

func number() *big.Float { return new(big.Float).SetPrec(2000) }

// hard returns finite numbers that are likely to meet the middle between two
// others, or the edges of the normal ones.
func hard(r *rand.Rand) float32 {
	mantissa := r.Uint32() & (1<<23 - 1)
	switch r.IntN(6) {
	case 0:
		mantissa = 0
	case 1:
		mantissa = 1 << r.IntN(23)
	case 2:
		mantissa = 1<<23 - 1<<r.IntN(23)
	case 3:
		mantissa = 1<<23 - 1
	case 4:
		high, low := r.IntN(23), r.IntN(23)
		mantissa = 1<<high | 1<<low
	}
	exponent := r.Uint32N(255)
	switch r.IntN(4) {
	case 0:
		exponent = 127 + r.Uint32N(4)
	case 1:
		exponent = r.Uint32N(30)
	case 2:
		exponent = 64 + r.Uint32N(8) // products near the smallest normal number
	}
	return math.Float32frombits(r.Uint32()&(1<<31) | exponent<<23 | mantissa)
}

func TestRoundingIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	fail := 0
	check := func(op string, a, b, c, got, want float32) {
		if math.Float32bits(got) != math.Float32bits(want) && fail < 10 {
			fail++
			t.Errorf("%s(%x, %x, %x) = %x, want %x", op, a, b, c, got, want)
		}
	}
	for i := range points.Count(60000) {
		a, b, c := hard(r), hard(r), hard(r)
		x, y := normal(a), normal(b)
		p := number().Mul(exact(x), exact(y))
		switch i % 4 {
		case 0: // cancel most of the product
			f, _ := number().SetPrec(24).Set(p).Float32()
			c = -f
		case 1: // a little beside the middle after a product that is one
			c = float32(math.Ldexp(float64(hard(r)), -r.IntN(100)))
			a = float32(1 + math.Ldexp(1, -12))
			x = a
			p = number().Mul(exact(x), exact(y))
		}
		z := normal(c)
		if math.IsInf(float64(c), 0) {
			continue
		}
		check("fma", a, b, c, fma32(a, b, c), exactly(number().Add(p, exact(z)), x*y+z))
		check("mul", a, b, 0, mul32(a, b), exactly(p, x*y))
		check("add", a, c, 0, add32(a, c), exactly(number().Add(exact(x), exact(z)), x+z))
		check("sub", a, c, 0, sub32(a, c), exactly(number().Sub(exact(x), exact(z)), x-z))
		if y != 0 {
			check("div", a, b, 0, div32(a, b), exactly(number().Quo(exact(x), exact(y)), x/y))
		}
		if x > 0 {
			check("sqrt", a, 0, 0, sqrt32(a), exactly(number().Sqrt(exact(x)), 0))
		}
	}
	// Where rounding twice goes wrong: just beside the middle of two numbers.
	for _, c := range []struct{ a, b, c, want float32 }{
		{1, 0x1.000002p0, 0x1p-24, 0x1.000004p0},                     // the middle: to even
		{0x1p-60, 0x1p-60, 0x1.000001p0, 0x1p0},                      // a literal that is itself rounded
		{1 + 0x1p-23, 0x1p-24, 1, 1 + 0x1p-23},                       // above the middle
		{1 - 0x1p-24, 0x1p-24, 1, 1},                                 // below
		{0x1p-64, 0x1p-63, 0, 0},                                     // too small
		{0x1p-63, 0x1p-63, 0, 0x1p-126},                              // the smallest
		{-0x1.fffffep-64, 0x1p-63, 0, float32(math.Copysign(0, -1))}, // 24 bits, below it
		{0x1.fffffep-64, 0x1.000001p-63, 0, 0},
	} {
		want := c.want
		if got := fma32(c.a, c.b, c.c); math.Float32bits(got) != math.Float32bits(want) {
			t.Errorf("fma(%x, %x, %x) = %x, want %x", c.a, c.b, c.c, got, want)
		}
	}
	// Half a step below 2^-126 rounds to it, a little less does not.
	if got := narrow(leastRounded); got != 0x1p-126 {
		t.Errorf("half a step below: %x", got)
	}
	if got := narrow(math.Nextafter(leastRounded, 0)); got != 0 {
		t.Errorf("below that: %x", got)
	}
	if got := fma32(1-0x1p-24, 0x1p-126, 0); got != 0 {
		t.Errorf("24 bits below the smallest: %x", got)
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, v := range []float32{fma32(nan, 1, 1), fma32(1, 1, nan), fma32(inf, 0, 1), fma32(inf, 1, -inf), fma32(0x1p-140, inf, 1)} {
		if v == v {
			t.Errorf("%v is not NaN", v)
		}
	}
	if fma32(3e38, 2, 0) != inf || fma32(inf, -1, 5) != -inf || fma32(0x1p100, 0x1p100, -inf) != -inf {
		t.Error("infinities")
	}
}

// The processor rounds by the same rule.
func TestAssemblyRounds(t *testing.T) {
	for name, v := range variants(t) {
		assemblyRounds(t, name, v)
	}
}

func assemblyRounds(t *testing.T, name string, v vector) {
	r := rand.New(rand.NewPCG(9, 10))
	const n = 4096
	a, c := make([]float32, n), make([]float32, n)
	for range 50 {
		b := hard(r)
		for i := range a {
			a[i], c[i] = hard(r), hard(r)
			if i%2 == 0 {
				f := float32(-float64(a[i]) * float64(b))
				c[i] = f
			}
		}
		got := append([]float32(nil), c...)
		before := v.enter()
		v.addScaled(got, n, a, n, 1, n, b)
		v.leave(before)
		for i := range c {
			c[i] = fma32(a[i], b, c[i])
		}
		equal(t, name+": fma", got, c)
	}
}
