// SPDX-License-Identifier: Apache-2.0

package shard

import "math/bits"

// golden is 2^64 divided by the golden ratio, SplitMix64's increment.
const golden = 0x9e3779b97f4a7c15

// mix is SplitMix64's output function, a bijection of 64-bit numbers.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Rand is a small generator whose sequence is a function of its key alone: the
// i-th number of a key is a hash of the key and i. It uses integer arithmetic
// only, so it gives the same numbers on every machine and in every release of
// Go. It is for shuffling, not for secrets.
type Rand struct{ state uint64 }

// NewRand makes the generator of the key (seed, path...). The length of the path
// is part of the key: (s, 1) and (s, 1, 0) are different keys.
func NewRand(seed uint64, path ...uint64) Rand {
	key := mix(seed + golden)
	for _, part := range path {
		// Each part passes through mix before it meets the key, because nearby
		// numbers (epochs, replicas) are the usual parts. The key is tripled so
		// that no part is neutral: with a plain sum or exclusive or, a part that
		// equals what came before could leave the key as it was.
		key = mix(3*key + mix(part+golden) + golden)
	}
	return Rand{key}
}

// Uint64 returns the next number.
func (r *Rand) Uint64() uint64 {
	r.state += golden
	return mix(r.state)
}

// Below returns a number in [0, n), each equally likely. It panics if n is 0.
func (r *Rand) Below(n uint64) uint64 {
	if n == 0 {
		panic("BUG: shard: no number is below 0")
	}
	// The high half of a product maps 2^64 numbers onto n; those whose low half
	// is below 2^64 mod n are the surplus that would bias it, and are redrawn.
	hi, lo := bits.Mul64(r.Uint64(), n)
	if lo < n {
		surplus := -n % n
		for lo < surplus {
			hi, lo = bits.Mul64(r.Uint64(), n)
		}
	}
	return hi
}

// Perm fills dst with a permutation of 0 .. len(dst)-1, each equally likely.
func (r *Rand) Perm(dst []uint32) {
	for i := range dst {
		dst[i] = uint32(i)
	}
	for i := len(dst) - 1; i > 0; i-- {
		j := r.Below(uint64(i) + 1)
		dst[i], dst[j] = dst[j], dst[i]
	}
}
