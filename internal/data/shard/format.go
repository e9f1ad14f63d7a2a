// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Limits of the format. They keep every size below 2^31, so arithmetic on valid
// headers cannot overflow even where int has 32 bits.
const (
	// MaxBytes bounds a whole shard: header, labels and pixels.
	MaxBytes = 64 << 20
	// MaxRecords bounds the records of a shard.
	MaxRecords = 1 << 24
	// MaxClasses is what a label can tell apart.
	MaxClasses = 1 << 16

	headerBytes = 32
	labelBytes  = 2
	version     = 1
)

var magic = [4]byte{'D', 'D', 'S', 'H'}

// ErrFormat: NewReader, ReadHeader and ReadRange when the bytes are no valid
// shard; Write when its arguments would not make one.
var ErrFormat = errors.New("shard: bad format")

// Header says what a shard holds.
type Header struct {
	Records int // records, 0 or more
	H, W, C int // shape of an image: rows, columns, channels
	Classes int // labels are below this
}

// RecordBytes is the size of one image. It means something for valid headers only.
func (h Header) RecordBytes() int { return h.H * h.W * h.C }

// Bytes is the exact size of the encoded shard, for valid headers.
func (h Header) Bytes() int64 {
	return headerBytes + int64(h.Records)*int64(labelBytes+h.RecordBytes())
}

// Validate reports the first way in which h is not the header of a shard, as an
// ErrFormat.
func (h Header) Validate() error {
	if h.Records < 0 || h.Records > MaxRecords {
		return fmt.Errorf("%w: %d records, want 0 to %d", ErrFormat, h.Records, MaxRecords)
	}
	if h.Classes < 1 || h.Classes > MaxClasses {
		return fmt.Errorf("%w: %d classes, want 1 to %d", ErrFormat, h.Classes, MaxClasses)
	}
	record := int64(1)
	for _, d := range [...]struct {
		name string
		n    int
	}{{"height", h.H}, {"width", h.W}, {"channels", h.C}} {
		if d.n < 1 || d.n > MaxBytes {
			return fmt.Errorf("%w: %s %d, want 1 to %d", ErrFormat, d.name, d.n, MaxBytes)
		}
		// Both factors are at most MaxBytes = 2^26, so the product fits.
		record *= int64(d.n)
		if record > MaxBytes {
			return fmt.Errorf("%w: an image of %dx%dx%d is larger than %d bytes", ErrFormat, h.H, h.W, h.C, MaxBytes)
		}
	}
	// At most 2^24 records of 2^26 + 2 bytes: fits as well.
	if total := headerBytes + int64(h.Records)*(labelBytes+record); total > MaxBytes {
		return fmt.Errorf("%w: %d records of %dx%dx%d take %d bytes, at most %d are allowed",
			ErrFormat, h.Records, h.H, h.W, h.C, total, MaxBytes)
	}
	return nil
}

// Write encodes one shard: pixels and labels of all its records in order. It
// only reads its arguments and writes the same bytes each time. Arguments that
// make no valid shard are ErrFormat, found before anything is written; errors
// of w are returned wrapped.
func Write(w io.Writer, h Header, pixels []byte, labels []uint16) error {
	if err := h.Validate(); err != nil {
		return err
	}
	if len(labels) != h.Records {
		return fmt.Errorf("%w: %d labels for %d records", ErrFormat, len(labels), h.Records)
	}
	if want := h.Records * h.RecordBytes(); len(pixels) != want {
		return fmt.Errorf("%w: %d bytes of pixels, want %d", ErrFormat, len(pixels), want)
	}
	for i, label := range labels {
		if int(label) >= h.Classes {
			return labelError(i, int(label), h.Classes)
		}
	}
	var buf [4096]byte
	copy(buf[:4], magic[:])
	le := binary.LittleEndian
	le.PutUint16(buf[4:], version)
	for i, n := range [...]int{h.Records, h.H, h.W, h.C, h.Classes} {
		le.PutUint32(buf[8+4*i:], uint32(n))
	}
	if _, err := w.Write(buf[:headerBytes]); err != nil {
		return fmt.Errorf("write shard header: %w", err)
	}
	for len(labels) > 0 {
		n := min(len(labels), len(buf)/labelBytes)
		for i, label := range labels[:n] {
			le.PutUint16(buf[labelBytes*i:], label)
		}
		if _, err := w.Write(buf[:labelBytes*n]); err != nil {
			return fmt.Errorf("write shard labels: %w", err)
		}
		labels = labels[n:]
	}
	if _, err := w.Write(pixels); err != nil {
		return fmt.Errorf("write shard pixels: %w", err)
	}
	return nil
}

func labelError(record, label, classes int) error {
	return fmt.Errorf("%w: record %d has label %d, want below %d", ErrFormat, record, label, classes)
}

// ReadHeader reads and checks the header alone.
func ReadHeader(r io.Reader) (Header, error) {
	var buf [headerBytes]byte
	return readHeader(r, buf[:])
}

func readHeader(r io.Reader, buf []byte) (Header, error) {
	buf = buf[:headerBytes]
	if err := readFull(r, buf, "header"); err != nil {
		return Header{}, err
	}
	le := binary.LittleEndian
	if [4]byte(buf[:4]) != magic {
		return Header{}, fmt.Errorf("%w: it starts with % x, not with %q", ErrFormat, buf[:4], magic[:])
	}
	if v := le.Uint16(buf[4:]); v != version {
		return Header{}, fmt.Errorf("%w: version %d, this program reads version %d", ErrFormat, v, version)
	}
	if le.Uint16(buf[6:]) != 0 || le.Uint32(buf[28:]) != 0 {
		return Header{}, fmt.Errorf("%w: reserved bytes of the header are not zero", ErrFormat)
	}
	var n [5]int
	for i := range n {
		v := le.Uint32(buf[8+4*i:])
		// Larger numbers are out of every limit; clamping keeps them positive
		// where int has 32 bits, and Validate refuses them.
		n[i] = int(min(v, math.MaxInt32))
	}
	h := Header{Records: n[0], H: n[1], W: n[2], C: n[3], Classes: n[4]}
	if err := h.Validate(); err != nil {
		return Header{}, err
	}
	return h, nil
}

// readFull fills buf. A stream that ends early is ErrFormat; other errors are
// the reader's own and are kept, so that callers can classify them.
func readFull(r io.Reader, buf []byte, what string) error {
	n, err := io.ReadFull(r, buf)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it ends inside the %s, %d bytes short", ErrFormat, what, len(buf)-n)
	default:
		return fmt.Errorf("read shard %s: %w", what, err)
	}
}

// Reader reads one range of records from a shard, in one forward pass and with
// a small fixed buffer of its own.
type Reader struct {
	Header Header

	r     io.Reader
	spent bool
	buf   [4096]byte
}

// NewReader reads and checks the header. It reads no further, keeps r, and
// never closes it.
func NewReader(r io.Reader) (*Reader, error) {
	rd := &Reader{r: r}
	h, err := readHeader(r, rd.buf[:])
	if err != nil {
		return nil, err
	}
	rd.Header = h
	return rd, nil
}

// ReadRange reads the records [from, to) into dst, or those of them that dst
// picks. The capacity of dst must hold them; it is never grown. It reads up to the end of the range and stops
// there; a range that ends with the shard must be followed by the end of the
// stream. All labels are checked, those outside the range too. After an error
// dst is empty. A Reader gives one range: the stream has moved on afterwards.
func (rd *Reader) ReadRange(from, to int, dst *Window) (err error) {
	h := rd.Header
	dst.Pixels, dst.Labels = dst.Pixels[:0], dst.Labels[:0]
	if rd.spent {
		return errors.New("shard: a Reader reads one range only")
	}
	rd.spent = true
	if from < 0 || to < from || to > h.Records {
		return fmt.Errorf("shard: range [%d, %d) is not within its %d records", from, to, h.Records)
	}
	n, recordBytes := to-from, h.RecordBytes()
	pick := dst.Pick
	if pick != nil {
		for i, record := range pick {
			if int(record) >= to-from || i > 0 && record <= pick[i-1] {
				return fmt.Errorf("shard: record %d picked as number %d of a range of %d: want them in rising order", record, i, to-from)
			}
		}
		n = len(pick)
	}
	if cap(dst.Labels) < n || cap(dst.Pixels) < n*recordBytes {
		return fmt.Errorf("shard: %d records of %d bytes do not fit a window of %d labels and %d bytes of pixels",
			n, recordBytes, cap(dst.Labels), cap(dst.Pixels))
	}
	labels, pixels := dst.Labels[:n], dst.Pixels[:n*recordBytes]

	next := 0 // in pick
	for at := 0; at < h.Records; {
		k := min(h.Records-at, len(rd.buf)/labelBytes)
		if err := readFull(rd.r, rd.buf[:labelBytes*k], "labels"); err != nil {
			return err
		}
		for i := range k {
			label := binary.LittleEndian.Uint16(rd.buf[labelBytes*i:])
			if int(label) >= h.Classes {
				return labelError(at+i, int(label), h.Classes)
			}
			switch record := at + i; {
			case record < from || record >= to:
			case pick == nil:
				labels[record-from] = label
			case next < n && record-from == int(pick[next]):
				labels[next] = label
				next++
			}
		}
		at += k
	}
	if err := rd.skip(from * recordBytes); err != nil {
		return err
	}
	if pick == nil {
		if err := readFull(rd.r, pixels, "pixels"); err != nil {
			return err
		}
	}
	at := 0 // records of the range that have been read
	for i, record := range pick {
		if err := rd.skip((int(record) - at) * recordBytes); err != nil {
			return err
		}
		if err := readFull(rd.r, pixels[i*recordBytes:][:recordBytes], "pixels"); err != nil {
			return err
		}
		at = int(record) + 1
	}
	if pick != nil {
		if err := rd.skip((to - from - at) * recordBytes); err != nil {
			return err
		}
	}
	if to == h.Records {
		switch n, err := io.ReadFull(rd.r, rd.buf[:1]); {
		case n > 0:
			return fmt.Errorf("%w: bytes follow the last record", ErrFormat)
		case !errors.Is(err, io.EOF):
			return fmt.Errorf("read shard end: %w", err)
		}
	}
	dst.Labels, dst.Pixels = labels, pixels
	return nil
}

// skip reads bytes of pixels and forgets them.
func (rd *Reader) skip(bytes int) error {
	for bytes > 0 {
		k := min(bytes, len(rd.buf))
		if err := readFull(rd.r, rd.buf[:k], "pixels"); err != nil {
			return err
		}
		bytes -= k
	}
	return nil
}
