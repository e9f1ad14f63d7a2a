// SPDX-License-Identifier: Apache-2.0

package format

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
)

// ErrFormat: every parser, when its input is not what it should be.
var ErrFormat = errors.New("bad format")

// MaxBytes bounds the pixels of one set: the controller holds them in memory.
const MaxBytes = 4 << 30

// Sizes that a file claims are allocated at once up to trustFloor and trust
// times the input; beyond that the memory grows with what is really there.
// Images compress to a quarter or so; trust leaves room for simple drawings.
const (
	trustFloor = 64 << 10
	trust      = 16
)

// formatError is an ErrFormat that says only what is wrong: where it is told,
// it stands behind the name of a file.
type formatError struct{ error }

func (e formatError) Unwrap() []error { return []error{e.error, ErrFormat} }

func badf(format string, args ...any) error { return formatError{fmt.Errorf(format, args...)} }

// readError says what an error of a reader means: that the bytes end early or
// are damaged is the file's fault, everything else is the machine's.
func readError(err error, where string) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return badf("%s: the file ends early", where)
	case errors.As(err, &corrupt), errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum),
		errors.Is(err, zlib.ErrHeader), errors.Is(err, zlib.ErrChecksum), errors.Is(err, zlib.ErrDictionary),
		errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong), errors.Is(err, tar.ErrInsecurePath),
		errors.Is(err, zip.ErrFormat), errors.Is(err, zip.ErrChecksum), errors.Is(err, zip.ErrAlgorithm), errors.Is(err, zip.ErrInsecurePath):
		return badf("%s: the file is damaged: %w", where, err)
	default:
		return fmt.Errorf("%s: %w", where, err)
	}
}

// fill reads exactly n bytes, where the input has the given size.
func fill(r io.Reader, n, input int64) ([]byte, error) {
	buf := make([]byte, min(n, believed(input)))
	at := 0
	for {
		k, err := io.ReadFull(r, buf[at:])
		at += k
		if err != nil {
			return nil, err
		}
		if int64(at) == n {
			return buf, nil
		}
		grown := make([]byte, min(n, 2*int64(len(buf))))
		copy(grown, buf)
		buf = grown
	}
}

// believed is how many bytes may be allocated on the word of an input.
func believed(input int64) int64 {
	return trustFloor + trust*min(max(input, 0), MaxBytes)
}

// ended demands that nothing is left.
func ended(r io.Reader, where string) error {
	var one [1]byte
	switch n, err := io.ReadFull(r, one[:]); {
	case n > 0:
		return badf("%s: more bytes follow than the file announces", where)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return readError(err, where)
	}
}

// plain undoes gzip, if the input starts as such.
func plain(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	start, err := b.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, readError(err, "start")
	}
	if len(start) < 2 || start[0] != 0x1f || start[1] != 0x8b {
		return b, nil
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, readError(err, "gzip header")
	}
	return z, nil
}

// product multiplies dimensions and reports whether none is negative and the
// result at most limit.
func product(dims []int64, limit int64) (int64, bool) {
	n := int64(1)
	for _, d := range dims {
		if d < 0 {
			return 0, false
		}
		if d == 0 {
			return 0, true
		}
		if n > limit/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// Tensor is an array of bytes; the last index varies fastest.
type Tensor struct {
	Dims []int
	Data []byte
}

func tensor(dims []int64, data []byte) Tensor {
	t := Tensor{Data: data}
	for _, d := range dims {
		t.Dims = append(t.Dims, int(d))
	}
	return t
}
