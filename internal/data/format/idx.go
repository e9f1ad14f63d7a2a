// SPDX-License-Identifier: Apache-2.0

package format

import (
	"encoding/binary"
	"io"
)

const (
	idxUint8   = 0x08
	idxMaxDims = 4
)

// IDX reads an array of unsigned bytes in the format of the MNIST files,
// compressed with gzip or not.
func IDX(r io.Reader, input int64) (Tensor, error) {
	r, err := plain(r)
	if err != nil {
		return Tensor{}, err
	}
	var head [4 * (1 + idxMaxDims)]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return Tensor{}, readError(err, "byte 0, the IDX header")
	}
	if head[0] != 0 || head[1] != 0 {
		return Tensor{}, badf("byte 0: it starts with % x, not with two zeros as IDX files do", head[:2])
	}
	if head[2] != idxUint8 {
		return Tensor{}, badf("byte 2: values of IDX type %#02x; only unsigned bytes (0x08) are read", head[2])
	}
	n := int(head[3])
	if n < 1 || n > idxMaxDims {
		return Tensor{}, badf("byte 3: %d dimensions, want 1 to %d", n, idxMaxDims)
	}
	if _, err := io.ReadFull(r, head[4:4+4*n]); err != nil {
		return Tensor{}, readError(err, "byte 4, the dimensions")
	}
	dims := make([]int64, n)
	for i := range dims {
		dims[i] = int64(binary.BigEndian.Uint32(head[4+4*i:]))
	}
	size, ok := product(dims, MaxBytes)
	if !ok {
		return Tensor{}, badf("byte 4: dimensions %v are more than %d bytes", dims, int64(MaxBytes))
	}
	data, err := fill(r, size, input)
	if err != nil {
		return Tensor{}, readError(err, "values")
	}
	if err := ended(r, "values"); err != nil {
		return Tensor{}, err
	}
	return tensor(dims, data), nil
}
