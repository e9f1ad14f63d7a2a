// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Reader reads one file from a stream. It is used by one goroutine at a time.
type Reader struct {
	r      io.Reader
	header Header
	next   int   // index of the next tensor
	err    error // of a read, sticky: the position in the stream is lost
}

// NewReader reads and validates the header. It reads no byte beyond it, and
// never allocates more than a small multiple of the bytes it has read.
//
// Bytes that are not a valid file, or end early, are ErrFormat; another error of
// r is returned as it is, wrapped.
func NewReader(r io.Reader) (*Reader, error) {
	var size [8]byte
	if err := readFull(r, size[:]); err != nil {
		return nil, fmt.Errorf("safetensors: read header length: %w", err)
	}
	n := binary.LittleEndian.Uint64(size[:])
	if n < 2 || n > MaxHeaderBytes {
		return nil, fmt.Errorf("%w: header of %d bytes, not in 2..%d", ErrFormat, n, MaxHeaderBytes)
	}
	text, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return nil, fmt.Errorf("safetensors: read header: %w", err)
	}
	if uint64(len(text)) != n {
		return nil, fmt.Errorf("%w: header ends after %d of %d bytes", ErrFormat, len(text), n)
	}
	header, err := parseHeader(text)
	if err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrFormat, err)
	}
	return &Reader{r: r, header: header}, nil
}

// Header returns the header; the caller must not change it.
func (r *Reader) Header() Header { return r.header }

// ReadNext reads the next tensor of Header().Tensors into dst, whose length
// must be the tensor's; another length is ErrFormat and reads nothing. After the
// last tensor it returns io.EOF if the stream ends there, and ErrFormat if it
// does not. When it fails in the middle, part of dst has been written.
func (r *Reader) ReadNext(dst []float32) error {
	if r.err == nil && r.next < len(r.header.Tensors) {
		if t := r.header.Tensors[r.next]; len(dst) != t.Len {
			return fmt.Errorf("%w: tensor %.80q has %d values of shape %v, wanted are %d", ErrFormat, t.Name, t.Len, t.Shape, len(dst))
		}
	}
	return r.pass(func() (int, error) { return readValues(r.r, dst) })
}

// Skip passes over the next tensor. After the last it does what ReadNext does.
func (r *Reader) Skip() error {
	return r.pass(func() (int, error) { return skipValues(r.r, r.header.Tensors[r.next].Len) })
}

// pass takes the next tensor's values from the stream, or finds its end.
func (r *Reader) pass(values func() (int, error)) error {
	if r.err != nil {
		return r.err
	}
	if r.next == len(r.header.Tensors) {
		if err := r.Finish(); err != nil {
			return err
		}
		return io.EOF
	}
	t := r.header.Tensors[r.next]
	if n, err := values(); err != nil {
		r.err = fmt.Errorf("safetensors: read tensor %.80q after %d of %d values: %w", t.Name, n, t.Len, err)
		return r.err
	}
	r.next++
	return nil
}

// Finish checks that all tensors have been read or skipped and that the stream
// ends after them.
func (r *Reader) Finish() error {
	if r.err != nil {
		return r.err
	}
	if n := len(r.header.Tensors) - r.next; n > 0 {
		return fmt.Errorf("safetensors: finish: %d tensors are not read", n)
	}
	var behind [1]byte
	switch _, err := io.ReadFull(r.r, behind[:]); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		r.err = fmt.Errorf("safetensors: read end: %w", err)
	default:
		r.err = fmt.Errorf("%w: data after the last tensor", ErrFormat)
	}
	return r.err
}

// readFull fills b.
func readFull(r io.Reader, b []byte) error {
	n, err := io.ReadFull(r, b)
	return truncated(err, n, len(b))
}

// truncated makes the end of a stream after n of size bytes a bad file.
func truncated(err error, n, size int) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: truncated: %d of %d bytes", ErrFormat, n, size)
	}
	return err
}
