// SPDX-License-Identifier: Apache-2.0

package data

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math"

	"disdel/internal/data/shard"
)

// Validate reports the first way in which the set contradicts its Info or
// itself, as an ErrInvalid.
func (s *Set) Validate() error {
	i := s.Info
	one := shard.Header{Records: 1, H: i.H, W: i.W, C: i.C, Classes: i.Classes}
	if err := one.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(i.ClassNames) != i.Classes {
		return fmt.Errorf("%w: %d class names for %d classes", ErrInvalid, len(i.ClassNames), i.Classes)
	}
	if !(i.Scale > 0 && i.Scale <= 1) {
		return fmt.Errorf("%w: scale %g, want above 0 and at most 1", ErrInvalid, i.Scale)
	}
	for _, p := range [...]struct {
		part    Part
		split   Split
		records int
	}{{Train, s.Train, i.Train}, {Test, s.Test, i.Test}} {
		if p.split.Len() != p.records {
			return fmt.Errorf("%w: %d labels in %s, want %d", ErrInvalid, p.split.Len(), p.part, p.records)
		}
		// Dividing, because multiplying could overflow.
		if n := len(p.split.Pixels); n%i.RecordBytes() != 0 || n/i.RecordBytes() != p.records {
			return fmt.Errorf("%w: %d bytes of pixels in %s, want %d records of %d", ErrInvalid, n, p.part, p.records, i.RecordBytes())
		}
		for r, label := range p.split.Labels {
			if int(label) >= i.Classes {
				return fmt.Errorf("%w: record %d of %s has label %d, want below %d", ErrInvalid, r, p.part, label, i.Classes)
			}
		}
	}
	if s.Train.Len() == 0 {
		return fmt.Errorf("%w: nothing to train on", ErrInvalid)
	}
	return nil
}

// digestTitle starts what is hashed, so that a change of the encoding changes
// every digest.
const digestTitle = "disdel data set 1\n"

// Digest identifies what training and evaluation see: SHA-256, in hexadecimal,
// over the title above, then little-endian: H, W, C, classes as uint32, the
// bits of the scale as uint32, and for the training split in the global order,
// then for the test split: the number of records as uint64, the labels as
// uint16, the pixels. Names and titles do not count. It is the same for every
// size of shard. A set that comes from Open knows it already.
func (s *Set) Digest() string {
	if s.digest != "" {
		return s.digest
	}
	h := sha256.New()
	le := binary.LittleEndian
	buf := append(make([]byte, 0, 4096), digestTitle...)
	for _, n := range [...]int{s.Info.H, s.Info.W, s.Info.C, s.Info.Classes} {
		buf = le.AppendUint32(buf, uint32(n))
	}
	buf = le.AppendUint32(buf, math.Float32bits(s.Info.Scale))
	buf = le.AppendUint64(buf, uint64(s.Train.Len()))
	write(h, buf)

	order, size := globalOrder(s.Train.Len()), s.Info.RecordBytes()
	buf = buf[:0]
	for _, r := range order {
		if len(buf)+2 > cap(buf) {
			write(h, buf)
			buf = buf[:0]
		}
		buf = le.AppendUint16(buf, s.Train.Labels[r])
	}
	write(h, buf)
	for _, r := range order {
		write(h, s.Train.Pixels[int(r)*size:(int(r)+1)*size])
	}

	buf = le.AppendUint64(buf[:0], uint64(s.Test.Len()))
	for _, label := range s.Test.Labels {
		if len(buf)+2 > cap(buf) {
			write(h, buf)
			buf = buf[:0]
		}
		buf = le.AppendUint16(buf, label)
	}
	write(h, buf)
	write(h, s.Test.Pixels)
	return hex.EncodeToString(h.Sum(nil))
}

// write feeds a hash, which never fails.
func write(h hash.Hash, b []byte) {
	if _, err := h.Write(b); err != nil {
		panic("BUG: data: a hash refused bytes: " + err.Error())
	}
}

// Part names a split of a data set, in keys and messages too.
type Part string

// The parts of a set.
const (
	Train Part = "train"
	Test  Part = "test"
)

// Shard is one shard that Cut has made. Its slices are valid during the call
// that receives it.
type Shard struct {
	Part   Part
	Index  int // its number within the part, from 0
	Header shard.Header
	Pixels []byte
	Labels []uint16
}

// Encode writes the shard in the format of package shard, the same bytes each
// time, Header.Bytes() of them. Its shape suits the store, which may call it
// again.
func (s Shard) Encode(w io.Writer) error {
	return shard.Write(w, s.Header, s.Pixels, s.Labels)
}

// The seeds that decide, for ever and for every job, which records are held out
// and in which order the training records are cut. They are arbitrary.
const (
	holdOutSeed = 20200501
	cutSeed     = 20200502
)

// globalOrder is the permutation of n training records that comes before
// cutting: position i of the global order is record globalOrder[i] of the split.
func globalOrder(n int) []uint32 {
	order := make([]uint32, n)
	r := shard.NewRand(cutSeed)
	r.Perm(order)
	return order
}

// targetShardBytes is about what a shard takes. A worker holds one piece of a
// shard in memory and fetches one at a time: small enough to be negligible
// beside a model's arena, large enough that a fetch costs less than training
// on what it brought.
const targetShardBytes = 1 << 20

// ShardRecords is the number of records that a shard of this data set has by
// default. It depends on the data set alone, because the order in which a
// replica sees its records depends on it.
func ShardRecords(i Info) int {
	return max(1, targetShardBytes/(i.RecordBytes()+2))
}

// Cut permutes the training split once and hands the shards of both splits,
// training first, each of shardRecords records but the last, to put, one after
// the other. The test split keeps its order. Cut stops at the first error of
// put and returns it wrapped. Besides the set it holds one shard and the
// permutation.
func Cut(set *Set, shardRecords int, put func(Shard) error) error {
	if err := set.Validate(); err != nil {
		return err
	}
	head := shard.Header{Records: shardRecords, H: set.Info.H, W: set.Info.W, C: set.Info.C, Classes: set.Info.Classes}
	if shardRecords < 1 {
		return fmt.Errorf("cut data set %s: %d records a shard", set.Info.Name, shardRecords)
	}
	if most := max(set.Train.Len(), set.Test.Len()); head.Records > most {
		head.Records = most
	}
	if err := head.Validate(); err != nil {
		return fmt.Errorf("cut data set %s: %w", set.Info.Name, err)
	}
	emit := func(s Shard) error {
		s.Header = head
		s.Header.Records = len(s.Labels)
		if err := put(s); err != nil {
			return fmt.Errorf("put shard %s/%d of data set %s: %w", s.Part, s.Index, set.Info.Name, err)
		}
		return nil
	}

	size := set.Info.RecordBytes()
	order := globalOrder(set.Train.Len())
	most := min(shardRecords, len(order))
	pixels, labels := make([]byte, 0, most*size), make([]uint16, 0, most)
	for index := 0; len(order) > 0; index++ {
		n := min(most, len(order))
		pixels, labels = pixels[:0], labels[:0]
		for _, r := range order[:n] {
			pixels = append(pixels, set.Train.Pixels[int(r)*size:(int(r)+1)*size]...)
			labels = append(labels, set.Train.Labels[r])
		}
		if err := emit(Shard{Part: Train, Index: index, Pixels: pixels, Labels: labels}); err != nil {
			return err
		}
		order = order[n:]
	}

	test := set.Test
	for index := 0; test.Len() > 0; index++ {
		n := min(shardRecords, test.Len())
		if err := emit(Shard{Part: Test, Index: index, Pixels: test.Pixels[:n*size], Labels: test.Labels[:n]}); err != nil {
			return err
		}
		test = Split{Pixels: test.Pixels[n*size:], Labels: test.Labels[n:]}
	}
	return nil
}
