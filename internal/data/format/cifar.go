// SPDX-License-Identifier: Apache-2.0

package format

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
)

// The shape of the CIFAR images.
const (
	CIFARSide     = 32
	CIFARChannels = 3

	cifarPlane = CIFARSide * CIFARSide
	cifarImage = CIFARChannels * cifarPlane
)

// CIFAR says how the records of a binary CIFAR file start: with one byte for
// each kind of label, of which the last is used. Each entry is the number of
// classes of that kind: {10} for CIFAR-10, {20, 100} for CIFAR-100, whose
// coarse labels are checked and dropped.
type CIFAR []int

// Append reads a binary file, whose size is announced by size and whose input
// is of the given size, and appends its records to pixels and labels. Errors
// leave both as long as the records that were read.
func (c CIFAR) Append(r io.Reader, size, input int64, pixels []byte, labels []uint16) ([]byte, []uint16, error) {
	record := int64(len(c) + cifarImage)
	if size < 0 || size%record != 0 {
		return pixels, labels, badf("%d bytes are no whole number of CIFAR records of %d", size, record)
	}
	records := size / record
	if size > MaxBytes {
		return pixels, labels, badf("%d CIFAR records are more than %d bytes", records, int64(MaxBytes))
	}
	pixels = slices.Grow(pixels, int(min(records*cifarImage, believed(input))))
	labels = slices.Grow(labels, int(min(records, believed(input)/2)))
	b := bufio.NewReaderSize(r, 64<<10)
	buf := make([]byte, record)
	for i := range records {
		if _, err := io.ReadFull(b, buf); err != nil {
			return pixels, labels, readError(err, fmt.Sprintf("record %d", i))
		}
		for k, classes := range c {
			if int(buf[k]) >= classes {
				return pixels, labels, badf("record %d: label %d, want below %d", i, buf[k], classes)
			}
		}
		labels = append(labels, uint16(buf[len(c)-1]))
		pixels = interleave(pixels, buf[len(c):])
	}
	return pixels, labels, ended(b, "records")
}

// interleave appends an image that comes as planes of red, green and blue.
func interleave(pixels, planes []byte) []byte {
	at := len(pixels)
	pixels = slices.Grow(pixels, cifarImage)[:at+cifarImage]
	to := pixels[at:]
	red, green, blue := planes[:cifarPlane], planes[cifarPlane:2*cifarPlane], planes[2*cifarPlane:3*cifarPlane]
	for p := range cifarPlane {
		to[3*p], to[3*p+1], to[3*p+2] = red[p], green[p], blue[p]
	}
	return pixels
}

// maxTarEntries bounds the files of an archive.
const maxTarEntries = 1000

// Tar hands each file of a tar archive, compressed with gzip or not, to each,
// in the archive's order, and reads it to its end. The size is what the archive
// says. It stops at the first error of each and returns it with the file's name.
func Tar(r io.Reader, each func(name string, size int64, r io.Reader) error) error {
	r, err := plain(r)
	if err != nil {
		return err
	}
	archive := tar.NewReader(r)
	for n := 0; ; n++ {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return readError(err, fmt.Sprintf("entry %d of the archive", n))
		}
		if n == maxTarEntries {
			return badf("more than %d entries in the archive", maxTarEntries)
		}
		if head.Typeflag != tar.TypeReg {
			continue
		}
		if err := each(head.Name, head.Size, archive); err != nil {
			return fmt.Errorf("%s in the archive: %w", head.Name, err)
		}
	}
	// What pads the archive holds gzip's checksum back.
	if _, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20)); err != nil {
		return readError(err, "end of the archive")
	}
	return nil
}
