// SPDX-License-Identifier: Apache-2.0

package format

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// MatValue is a variable of a MAT file, or a cell of one. Arrays of other
// classes than cells, characters and uint8 have dimensions and no contents.
type MatValue struct {
	Name  string
	Dims  []int
	Cells []MatValue // column-major
	Text  string     // characters, column-major
	Bytes []byte     // uint8 values, column-major
}

// Limits of MAT files. The set that this is for has half a megabyte.
const (
	matMaxBytes = 256 << 20 // of the file, and of all that it decompresses to
	matMaxDepth = 4         // cells within cells
	matMaxDims  = 8
	matHeader   = 128
)

// The data types and array classes that matter here.
const (
	miINT8       = 1
	miUINT8      = 2
	miUINT16     = 4
	miINT32      = 5
	miUINT32     = 6
	miMATRIX     = 14
	miCOMPRESSED = 15
	miUTF8       = 16
	miUTF16      = 17

	mxCELL   = 1
	mxCHAR   = 4
	mxUINT8  = 9
	mxUINT64 = 15
)

// MAT reads the variables of a MATLAB 5.0 file, as saved by versions 5 to 7,
// uncompressed or compressed, of either byte order. It holds the file and what
// it decompresses to in memory.
func MAT(r io.Reader, input int64) ([]MatValue, error) {
	if input > matMaxBytes {
		return nil, badf("a MAT file of %d bytes, at most %d are read", input, matMaxBytes)
	}
	file, err := io.ReadAll(io.LimitReader(r, matMaxBytes+1))
	if err != nil {
		return nil, readError(err, "MAT file")
	}
	if len(file) < matHeader {
		return nil, badf("byte %d: the MAT header ends early", len(file))
	}
	m := matReader{left: matMaxBytes}
	switch string(file[126:128]) {
	case "IM":
		m.order = binary.LittleEndian
	case "MI":
		m.order = binary.BigEndian
	default:
		return nil, badf("byte 126: no mark of the byte order: not a MAT file of version 5")
	}
	switch v := m.order.Uint16(file[124:]); v {
	case 0x0100:
	case 0x0200:
		return nil, badf("byte 124: a MAT file of version 7.3 (HDF5), which is not read; save it with -v7")
	default:
		return nil, badf("byte 124: MAT version %#04x, want 0x0100", v)
	}
	var values []MatValue
	for at := matHeader; at < len(file); {
		e, err := m.element(file, at, 0)
		if err != nil {
			return nil, err
		}
		// The next element follows a compressed one at once, and others after
		// padding to eight bytes.
		at = e.end
		body, base := e, e.at
		if e.kind == miCOMPRESSED {
			if body, err = m.inflate(e); err != nil {
				return nil, err
			}
		} else if at, err = e.padded(len(file)); err != nil {
			return nil, err
		}
		if body.kind != miMATRIX {
			return nil, badf("byte %d: data of type %d, want an array", base, body.kind)
		}
		v, err := m.matrix(body, 0)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

type matReader struct {
	order binary.ByteOrder
	left  int64 // bytes that may still come out of compressed elements
}

// matElement is a tagged piece of a MAT file. at and end are its places in the
// bytes that it was found in; from is what to add for messages.
type matElement struct {
	kind  uint32
	data  []byte
	at    int
	end   int
	small bool
	from  int
}

func (e matElement) place() int { return e.from + e.at }

// padded is where what follows the element starts, in n bytes.
func (e matElement) padded(n int) (int, error) {
	if e.small {
		return e.end, nil
	}
	next := (e.end + 7) &^ 7
	if next > n {
		// Nothing but the end of everything may follow without padding.
		if e.end == n {
			return n, nil
		}
		return 0, badf("byte %d: the padding of an element ends early", e.place())
	}
	return next, nil
}

// element reads the tag at a place, in the small form or the usual one.
func (m *matReader) element(b []byte, at, from int) (matElement, error) {
	e := matElement{at: at, from: from}
	if len(b)-at < 8 {
		return e, badf("byte %d: a tag ends early", e.place())
	}
	first := m.order.Uint32(b[at:])
	if n := int(first >> 16); n != 0 {
		if n > 4 {
			return e, badf("byte %d: a small element of %d bytes, want at most 4", e.place(), n)
		}
		e.kind, e.data, e.end, e.small = first&0xffff, b[at+4:at+4+n], at+8, true
		return e, nil
	}
	n := int64(m.order.Uint32(b[at+4:]))
	if n > int64(len(b)-at-8) {
		return e, badf("byte %d: an element of %d bytes where %d are left", e.place(), n, len(b)-at-8)
	}
	e.kind, e.data, e.end = first, b[at+8:at+8+int(n)], at+8+int(n)
	return e, nil
}

func (m *matReader) inflate(e matElement) (matElement, error) {
	where := fmt.Sprintf("byte %d, a compressed element", e.place())
	z, err := zlib.NewReader(bytes.NewReader(e.data))
	if err != nil {
		return e, readError(err, where)
	}
	all, err := io.ReadAll(io.LimitReader(z, m.left+1))
	if err != nil {
		return e, readError(err, where)
	}
	if m.left -= int64(len(all)); m.left < 0 {
		return e, badf("%s: the file decompresses to more than %d bytes", where, matMaxBytes)
	}
	in, err := m.element(all, 0, e.place())
	if err != nil {
		return e, err
	}
	if next, err := in.padded(len(all)); err != nil || next != len(all) {
		return e, badf("%s holds more than one element", where)
	}
	return in, nil
}

// matrix reads an array element.
func (m *matReader) matrix(e matElement, depth int) (MatValue, error) {
	var v MatValue
	if len(e.data) == 0 { // how an empty cell may be written
		v.Dims = []int{0, 0}
		return v, nil
	}
	parts := matParts{m: m, b: e.data, from: e.place() + 8}
	flags, err := parts.next("array flags", miUINT32)
	if err != nil {
		return v, err
	}
	if len(flags.data) != 8 {
		return v, badf("byte %d: %d bytes of array flags, want 8", flags.place(), len(flags.data))
	}
	class := m.order.Uint32(flags.data) & 0xff
	if class < mxCELL || class > mxUINT64 {
		return v, badf("byte %d: an array of class %d, which MAT files of version 5 do not have", flags.place(), class)
	}
	dims, err := parts.next("dimensions", miINT32)
	if err != nil {
		return v, err
	}
	if n := len(dims.data) / 4; len(dims.data)%4 != 0 || n < 2 || n > matMaxDims {
		return v, badf("byte %d: %d bytes of dimensions, want 2 to %d numbers", dims.place(), len(dims.data), matMaxDims)
	}
	var sizes []int64
	for i := 0; i < len(dims.data); i += 4 {
		sizes = append(sizes, int64(int32(m.order.Uint32(dims.data[i:]))))
	}
	count, ok := product(sizes, matMaxBytes)
	if !ok {
		return v, badf("byte %d: an array of dimensions %v", dims.place(), sizes)
	}
	v.Dims = tensor(sizes, nil).Dims
	name, err := parts.next("name", miINT8)
	if err != nil {
		return v, err
	}
	if !utf8.Valid(name.data) {
		return v, badf("byte %d: the name %.20q", name.place(), name.data)
	}
	v.Name = string(name.data)

	switch class {
	case mxCELL:
		if depth == matMaxDepth {
			return v, badf("byte %d: cells in cells, more than %d deep", e.place(), matMaxDepth)
		}
		if count > int64(len(parts.b)-parts.at)/8 {
			return v, badf("byte %d: %d cells in %d bytes", dims.place(), count, len(parts.b)-parts.at)
		}
		v.Cells = make([]MatValue, count)
		for i := range v.Cells {
			cell, err := parts.next("cell", miMATRIX)
			if err != nil {
				return v, err
			}
			if v.Cells[i], err = m.matrix(cell, depth+1); err != nil {
				return v, err
			}
		}
	case mxCHAR:
		text, err := parts.next("characters", miUINT16, miUINT8, miUTF8, miUTF16)
		if err != nil {
			return v, err
		}
		if v.Text, ok = m.text(text); !ok || int64(len([]rune(v.Text))) != count {
			return v, badf("byte %d: characters that are not %d of them", text.place(), count)
		}
	case mxUINT8:
		values, err := parts.next("uint8 values", miUINT8)
		if err != nil {
			return v, err
		}
		if int64(len(values.data)) != count {
			return v, badf("byte %d: %d uint8 values, want %d", values.place(), len(values.data), count)
		}
		v.Bytes = values.data
	default:
		return v, nil
	}
	if parts.at != len(parts.b) {
		return v, badf("byte %d: more follows in the array", parts.from+parts.at)
	}
	return v, nil
}

func (m *matReader) text(e matElement) (string, bool) {
	switch e.kind {
	case miUINT16, miUTF16:
		if len(e.data)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(e.data)/2)
		for i := range units {
			units[i] = m.order.Uint16(e.data[2*i:])
		}
		return string(utf16.Decode(units)), true
	default:
		return string(e.data), utf8.Valid(e.data)
	}
}

// matParts walks the elements inside an array.
type matParts struct {
	m    *matReader
	b    []byte
	at   int
	from int
}

// next reads the next element, which must be of one of the kinds.
func (p *matParts) next(what string, kinds ...uint32) (matElement, error) {
	e, err := p.m.element(p.b, p.at, p.from)
	if err != nil {
		return e, err
	}
	if p.at, err = e.padded(len(p.b)); err != nil {
		return e, err
	}
	for _, k := range kinds {
		if e.kind == k {
			return e, nil
		}
	}
	return e, badf("byte %d: data of type %d for the %s", e.place(), e.kind, what)
}
