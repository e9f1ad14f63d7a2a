// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// golden values come from an independent program, testdata/order_golden.py.
type goldenOrder struct {
	Mix     []uint64 `json:"mix"`
	Numbers []uint64 `json:"numbers"`
	Keyed   []uint64 `json:"keyed"`
	Below   []uint64 `json:"below"`
	Perm    []uint32 `json:"perm"`
	Pieces  [][3]int `json:"pieces"`
	Epochs  [][]int  `json:"epochs"`
}

func readGolden(t *testing.T) goldenOrder {
	t.Helper()
	text, err := os.ReadFile("testdata/order_golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g goldenOrder
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestRand_IsTheDescribedOne(t *testing.T) {
	g := readGolden(t)
	raw := Rand{}
	for i, want := range g.Mix {
		if got := raw.Uint64(); got != want {
			t.Errorf("SplitMix64 number %d is %d, want %d", i, got, want)
		}
	}
	plain, keyed := NewRand(42), NewRand(42, 1, 2, 3)
	for i := range g.Numbers {
		if got := plain.Uint64(); got != g.Numbers[i] {
			t.Errorf("number %d is %d, want %d", i, got, g.Numbers[i])
		}
		if got := keyed.Uint64(); got != g.Keyed[i] {
			t.Errorf("keyed number %d is %d, want %d", i, got, g.Keyed[i])
		}
	}
	// About half of the draws for this bound are redrawn, so both paths run.
	for i, want := range g.Below {
		r := NewRand(7, uint64(i))
		if got := r.Below(1<<63 + 12345); got != want {
			t.Errorf("bounded number %d is %d, want %d", i, got, want)
		}
	}
	perm := make([]uint32, len(g.Perm))
	r := NewRand(1, 2)
	r.Perm(perm)
	if !slices.Equal(perm, g.Perm) {
		t.Errorf("permutation %v, want %v", perm, g.Perm)
	}
}

func TestRand_PathsAreDifferentKeys(t *testing.T) {
	seen := map[uint64][]uint64{}
	for _, path := range [][]uint64{
		{}, {0}, {0, 0}, {0, 0, 0}, {1}, {1, 0}, {0, 1}, {1, 1}, {2}, {golden}, {1, 2}, {2, 1}, {0, 0, 1}, {1, 0, 0},
	} {
		r := NewRand(0, path...)
		v := r.Uint64()
		if other, ok := seen[v]; ok {
			t.Errorf("paths %v and %v give the same numbers", path, other)
		}
		seen[v] = path
	}
}

func TestRand_BelowIsEven(t *testing.T) {
	const n, draws = 7, 70000
	var counts [n]int
	r := NewRand(3)
	for range draws {
		counts[r.Below(n)]++
	}
	chi := 0.0
	for _, c := range counts {
		d := float64(c) - draws/n
		chi += d * d / (draws / n)
	}
	// 22.5 is exceeded once in a thousand seeds; the seed is fixed.
	if chi > 22.5 {
		t.Errorf("counts %v, chi square %.1f with 6 degrees of freedom", counts, chi)
	}
}

func TestRand_PermIsEven(t *testing.T) {
	counts := map[[4]uint32]int{}
	const each = 500
	for i := range 24 * each {
		var p [4]uint32
		r := NewRand(5, uint64(i))
		r.Perm(p[:])
		counts[p]++
	}
	if len(counts) != 24 {
		t.Fatalf("%d of 24 permutations of 4", len(counts))
	}
	chi := 0.0
	for _, c := range counts {
		d := float64(c - each)
		chi += d * d / each
	}
	if chi > 49.7 { // one in a thousand with 23 degrees of freedom
		t.Errorf("chi square %.1f", chi)
	}
}

func TestRand_NothingBelowZero(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	r := NewRand(0)
	r.Below(0)
}

func TestPieces_EveryRecordOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := rapid.IntRange(0, 400).Draw(t, "records")
		shardRecords := rapid.IntRange(1, 90).Draw(t, "shardRecords")
		replicas := rapid.IntRange(1, 40).Draw(t, "replicas")
		at, least, most := 0, records, 0
		for r := range replicas {
			pieces := Pieces(records, shardRecords, replicas, r)
			if want := Count(records, shardRecords); len(pieces) > 0 && pieces[len(pieces)-1].Shard >= want {
				t.Fatalf("replica %d: shard %d of %d", r, pieces[len(pieces)-1].Shard, want)
			}
			for i, p := range pieces {
				if i > 0 && p.Shard == pieces[i-1].Shard {
					t.Fatalf("replica %d has two pieces of shard %d", r, p.Shard)
				}
				if p.From >= p.To || p.To > shardRecords {
					t.Fatalf("replica %d: piece %+v", r, p)
				}
				// Replicas in order and their pieces in order walk the global
				// order without gap or overlap.
				if p.Shard*shardRecords+p.From != at {
					t.Fatalf("replica %d: piece %+v starts at %d, want %d", r, p, p.Shard*shardRecords+p.From, at)
				}
				at += p.Len()
			}
			n := Records(pieces)
			least, most = min(least, n), max(most, n)
			if cap(pieces) != len(pieces) {
				t.Fatalf("replica %d: %d pieces in room for %d", r, len(pieces), cap(pieces))
			}
		}
		if at != records {
			t.Fatalf("pieces end at %d of %d", at, records)
		}
		if most-least > 1 {
			t.Fatalf("replicas own %d to %d records", least, most)
		}
	})
}

func TestOwned_DoesNotOverflow(t *testing.T) {
	const records, replicas = 1 << 62, 1 << 40
	if from, to := Owned(records, replicas, replicas-1); from != records-1<<22 || to != records {
		t.Errorf("last replica owns [%d, %d)", from, to)
	}
}

func TestPieces_RefusesNonsense(t *testing.T) {
	for _, c := range [][4]int{{-1, 1, 1, 0}, {1, 0, 1, 0}, {1, MaxRecords + 1, 1, 0}, {1, 1, 0, 0}, {1, 1, 2, 2}, {1, 1, 2, -1}} {
		if CheckSplit(c[0], c[1], c[2], c[3]) == nil {
			t.Errorf("%v passes the check", c)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Pieces(%v) does not panic", c)
				}
			}()
			Pieces(c[0], c[1], c[2], c[3])
		}()
	}
}
