// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"encoding/binary"
	"io"
	"slices"
	"unsafe"
)

// swapped says that this machine keeps numbers big-endian, so that the bytes of its
// values are not those of a file.
var swapped = binary.NativeEndian.Uint16([]byte{1, 0}) != 1

// bytesOf are the bytes of values, where they lie.
func bytesOf(values []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), 4*len(values))
}

// swap changes the order of each value's bytes.
func swap(values []byte) {
	for i := 0; i < len(values); i += 4 {
		slices.Reverse(values[i:][:4])
	}
}

// chunkValues are swapped at a time: w must see a copy.
const chunkValues = 8 << 10

func writeValues(w io.Writer, values []float32) error {
	if !swapped && len(values) > 0 {
		_, err := w.Write(bytesOf(values))
		return err
	}
	for chunk := range slices.Chunk(values, chunkValues) {
		reversed := slices.Clone(bytesOf(chunk))
		swap(reversed)
		if _, err := w.Write(reversed); err != nil {
			return err
		}
	}
	return nil
}

// readValues returns how many values have been read whole.
func readValues(r io.Reader, values []float32) (int, error) {
	to := bytesOf(values)
	n, err := io.ReadFull(r, to)
	if swapped {
		swap(to[:n/4*4])
	}
	return n / 4, truncated(err, n, len(to))
}

func skipValues(r io.Reader, count int) (int, error) {
	n, err := io.CopyN(io.Discard, r, 4*int64(count))
	return int(n / 4), truncated(err, int(n), 4*count)
}
