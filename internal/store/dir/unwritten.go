// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"math"
	"os"
)

// unwrittenLeast is the least that a part is worth being written by itself.
const unwrittenLeast = 64 << 10

// Bound implements store.Bounder. What the disk does not have yet the kernel counts
// as memory of the container that wrote it, and cannot take back: a container whose
// limit leaves less room than an object has may be killed when the disk is slow.
// Without a bound the kernel chooses when to write, which is later and less: objects
// that are soon deleted need never be written.
func (s *Store) Bound(n int64) { s.bound.Store(n) }

// bounded is where to write to an empty file from its start to its end.
func (s *Store) bounded(file *os.File) *boundedFile {
	b := &boundedFile{file: file, part: math.MaxInt64}
	if bound := s.bound.Load(); bound > 0 {
		// A quarter may be on its way, another wait for its turn; the rest is for
		// files that are smaller than that.
		b.part = max(unwrittenLeast, bound/4)
	}
	return b
}

// boundedFile writes in parts to the disk.
type boundedFile struct {
	file *os.File
	part int64
	// Up to done the disk has it, up to sent it is on its way.
	done, sent, written int64
}

func (b *boundedFile) Write(p []byte) (int, error) {
	n, err := b.file.Write(p)
	if b.written += int64(n); err == nil && b.written-b.sent >= b.part {
		err = pushOut(b.file, b.done, b.sent, b.written)
		b.done, b.sent = b.sent, b.written
	}
	return n, err
}

// end waits for the rest of a file of which some was sent: what is written next has
// the bound for itself.
func (b *boundedFile) end() error {
	if b.sent == 0 || b.done == b.written {
		return nil
	}
	if err := pushOut(b.file, b.done, b.sent, b.written); err != nil {
		return err
	}
	b.done, b.sent = b.sent, b.written
	if b.done == b.written {
		return nil
	}
	err := pushOut(b.file, b.done, b.written, b.written)
	b.done = b.written
	return err
}
