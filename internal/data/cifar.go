// SPDX-License-Identifier: Apache-2.0

package data

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"slices"

	"disdel/internal/data/format"
)

// cifarFiles are the files of a binary CIFAR set, in the order of their
// records, the training ones first.
type cifarFiles struct {
	labels      format.CIFAR
	folder      string // in the archive
	train, test []string
}

func (c cifarFiles) all() []string { return append(slices.Clone(c.train), c.test...) }

// layouts are the extracted folder, its files alone, and the archive.
func (c cifarFiles) layouts(archive string) []layout {
	var below []string
	for _, name := range c.all() {
		below = append(below, path.Join(c.folder, name))
	}
	return []layout{{below, c.readFiles}, {c.all(), c.readFiles}, {[]string{archive}, c.readArchive}}
}

func (c cifarFiles) shape() format.Shape {
	return format.Shape{H: format.CIFARSide, W: format.CIFARSide, C: format.CIFARChannels}
}

func (c cifarFiles) readFiles(ctx context.Context, paths []string, _ int) (content, error) {
	out := content{shape: c.shape()}
	for i, name := range paths {
		err := withFile(ctx, name, func(f source) error {
			to := &out.train
			if i >= len(c.train) {
				to = &out.test
			}
			// All training files are about as large: one growth for all of them.
			if i == 0 {
				to.Pixels = make([]byte, 0, f.size*int64(len(c.train)))
			}
			var err error
			to.Pixels, to.Labels, err = c.labels.Append(f, f.size, f.size, to.Pixels, to.Labels)
			return err
		})
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// readArchive reads the published archive in one pass. Its files come in any
// order.
func (c cifarFiles) readArchive(ctx context.Context, paths []string, _ int) (content, error) {
	out := content{shape: c.shape()}
	err := withFile(ctx, paths[0], func(f source) error {
		sum := sha256.New()
		r := io.TeeReader(f, sum)
		seen := map[string]bool{}
		train := ordered{record: out.shape.Bytes()}
		err := format.Tar(r, func(name string, size int64, entry io.Reader) (err error) {
			name = path.Base(name)
			at, isTrain := slices.Index(c.train, name), true
			if at < 0 {
				at, isTrain = slices.Index(c.test, name), false
			}
			if at < 0 {
				return nil
			}
			if seen[name] {
				return fmt.Errorf("%w: it is there twice", ErrInvalid)
			}
			seen[name] = true
			if isTrain {
				return train.add(at, func(s Split) (Split, error) {
					// All training files are about as large, and pixels hardly compress.
					if s.Pixels == nil {
						s.Pixels = make([]byte, 0, min(size*int64(len(c.train)), 2*f.size))
					}
					s.Pixels, s.Labels, err = c.labels.Append(entry, size, f.size, s.Pixels, s.Labels)
					return s, err
				})
			}
			out.test.Pixels, out.test.Labels, err = c.labels.Append(entry, size, f.size, out.test.Pixels, out.test.Labels)
			return err
		})
		if err != nil {
			return err
		}
		for _, name := range c.all() {
			if !seen[name] {
				return fmt.Errorf("%w: there is no %s in it", ErrInvalid, name)
			}
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
		out.train, out.sha256 = train.Split, hex.EncodeToString(sum.Sum(nil))
		return nil
	})
	return out, err
}

// ordered is a split whose parts arrive in any order.
type ordered struct {
	Split
	record int
	parts  []orderedPart // in their right order
}

type orderedPart struct{ index, records int }

// add appends a part and moves it to its place, without a second copy of all.
func (o *ordered) add(index int, appendTo func(Split) (Split, error)) (err error) {
	before := o.Len()
	if o.Split, err = appendTo(o.Split); err != nil {
		return err
	}
	at, records := 0, 0
	for at < len(o.parts) && o.parts[at].index < index {
		records += o.parts[at].records
		at++
	}
	o.parts = slices.Insert(o.parts, at, orderedPart{index, o.Len() - before})
	rotate(o.Labels[records:], before-records)
	rotate(o.Pixels[records*o.record:], (before-records)*o.record)
	return nil
}

// rotate brings what is from mid on to the front, in place.
func rotate[T any](s []T, mid int) {
	if mid == 0 || mid == len(s) {
		return
	}
	slices.Reverse(s[:mid])
	slices.Reverse(s[mid:])
	slices.Reverse(s)
}
