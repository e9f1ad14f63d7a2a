// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"math/bits"
)

// Piece is the records [From, To) of the shard with that number, counted from
// the start of the shard.
type Piece struct{ Shard, From, To int }

// Len is the number of records in p.
func (p Piece) Len() int { return p.To - p.From }

// Count is the number of shards that records make, shardRecords in each, fewer
// in the last one.
func Count(records, shardRecords int) int {
	n := records / shardRecords
	if records%shardRecords != 0 {
		n++
	}
	return n
}

// Records is the number of records in all pieces together.
func Records(pieces []Piece) int {
	n := 0
	for _, p := range pieces {
		n += p.Len()
	}
	return n
}

// Owned returns the range [from, to) of the global order that belongs to one of
// the replicas: [n r/K, n (r+1)/K). Sizes differ by at most one. See
// [CheckSplit] for what the arguments must satisfy.
func Owned(records, replicas, replica int) (from, to int) {
	return mulDiv(records, replica, replicas), mulDiv(records, replica+1, replicas)
}

// mulDiv is a*b/c in 128 bits; b <= c keeps the result within a.
func mulDiv(a, b, c int) int {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int(q)
}

// CheckSplit says what is wrong with arguments of [Pieces] that came from
// outside the program.
func CheckSplit(records, shardRecords, replicas, replica int) error {
	switch {
	case records < 0:
		return fmt.Errorf("shard: %d records", records)
	case shardRecords < 1 || shardRecords > MaxRecords:
		return fmt.Errorf("shard: %d records a shard, want 1 to %d", shardRecords, MaxRecords)
	case replicas < 1:
		return fmt.Errorf("shard: %d replicas", replicas)
	case replica < 0 || replica >= replicas:
		return fmt.Errorf("shard: replica %d of %d", replica, replicas)
	}
	return nil
}

// Pieces returns what the replica owns of a global order that was cut into
// shards of shardRecords records, in that order. A replica that owns nothing
// has no piece. It panics where [CheckSplit] has an objection.
//
// The same function divides a test split among inference actions.
func Pieces(records, shardRecords, replicas, replica int) []Piece {
	if err := CheckSplit(records, shardRecords, replicas, replica); err != nil {
		panic("BUG: " + err.Error())
	}
	from, to := Owned(records, replicas, replica)
	if from == to {
		return nil
	}
	pieces := make([]Piece, 0, (to-1)/shardRecords-from/shardRecords+1)
	for from < to {
		s := from / shardRecords
		start := s * shardRecords
		end := to
		if to-start > shardRecords {
			end = start + shardRecords
		}
		pieces = append(pieces, Piece{Shard: s, From: from - start, To: end - start})
		from = end
	}
	return pieces
}
