// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"testing"

	"disdel/internal/points"
)

// variants returns the ways in which this machine can run fma-1 by assembly, and says
// which it cannot.
func variants(t testing.TB) map[string]vector {
	m := map[string]vector{}
	for name, v := range map[string]struct {
		v       vector
		present bool
	}{"avx2": {avx2, assembled()}, "avx512": {avx512, assembled512()}} {
		if v.present {
			m[name] = v.v
		} else {
			t.Logf("this machine cannot run %s: it was not tested", name)
		}
	}
	return m
}

// singles returns fma-1 by every assembly that this machine can run, or if there is
// none, in plain Go.
func singles(t testing.TB) map[string]Set {
	m := map[string]Set{}
	for name, v := range variants(t) {
		m[name] = fmaSet(v, nil)
	}
	if len(m) == 0 {
		m["plain Go"] = FMA()
	}
	return m
}

// forms are the ways to run fma-1 that must not differ.
func forms(t *testing.T) map[string]Set {
	m := singles(t)
	m["reference"] = FMAReference()
	team := func(name string, s Set, n int) {
		team := NewTeam(n, n == 2)
		t.Cleanup(team.Close)
		m[fmt.Sprintf("%s%d threads", name, n)] = s.On(team)
	}
	for _, n := range []int{2, 3, 8} {
		team("", FMA(), n)
	}
	if s, ok := fma512(); ok {
		team("avx512, ", s, 3)
	}
	return m
}

// cases is how many of n cases are tried: under -short, for machines that are emulated,
// a tenth.
func cases(n int) int {
	if testing.Short() {
		n /= 10
	}
	return points.Count(n)
}

// FMA does not choose vectors of sixteen, which have to be asked for.
func TestWideIsAskedFor(t *testing.T) {
	if v := fastest(); v == avx512 {
		t.Error("FMA runs with vectors of sixteen")
	}
	s, ok := fma512()
	if ok != assembled512() || ok && s.Name != FMA().Name {
		t.Errorf("asked for: %q, %t", s.Name, ok)
	}
}

// Blocks of products are all that is there, and none is too large.
func TestWideBlocks(t *testing.T) {
	for vectors := 1; vectors <= widest; vectors++ {
		for m := 1; m <= 100; m++ {
			rows, larger, rest := blocksWide(m, vectors)
			if (rows+1)*larger+rows*rest != m || rows < 1 || rest < 1 || larger < 0 {
				t.Errorf("%d rows, %d vectors: %d blocks of %d, %d of %d", m, vectors, larger, rows+1, rest, rows)
			}
			if most := rows + min(larger, 1); most > tileRows[vectors] || vectors*most > 24 {
				t.Errorf("%d rows, %d vectors: blocks of %d do not fit in registers", m, vectors, most)
			}
		}
	}
}
