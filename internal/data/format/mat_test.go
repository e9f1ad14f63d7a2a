// SPDX-License-Identifier: Apache-2.0

package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"

	"disdel/internal/data/format/formattest"
)

// sampleMAT has one variable of each class that is read and one that is not.
func sampleMAT(o formattest.ByteOrder, compressed bool) []byte {
	cell := func(data ...byte) []byte {
		return formattest.MATArray(o, mxUINT8, []int{2, 2}, "", formattest.MATElement(o, miUINT8, data))
	}
	label := func(c byte) []byte {
		return formattest.MATArray(o, mxCHAR, []int{1, 1}, "", formattest.MATSmall(o, miUINT16, o.AppendUint16(nil, uint16(c))))
	}
	elements := [][]byte{
		formattest.MATArray(o, mxCELL, []int{1, 2}, "dat", cell(0, 1, 1, 0), cell(1, 1, 0, 0)),
		formattest.MATArray(o, 6, []int{1, 1}, "numclasses", formattest.MATSmall(o, miUINT8, []byte{36})),
		formattest.MATArray(o, mxCELL, []int{1, 3}, "classlabels", label('0'), label('A'), formattest.MATElement(o, miMATRIX, nil)),
		formattest.MATArray(o, mxCHAR, []int{1, 5}, "text", formattest.MATElement(o, miUTF8, []byte("héllo"))),
		formattest.MATArray(o, mxUINT8, []int{1, 3}, "odd", formattest.MATSmall(o, miUINT8, []byte{7, 8, 9})),
	}
	if compressed {
		for i, e := range elements {
			elements[i] = formattest.MATCompressed(o, e)
		}
	}
	return formattest.MAT(o, elements...)
}

func TestMAT_ReadsEitherOrderAndCompression(t *testing.T) {
	want := []MatValue{
		{Name: "dat", Dims: []int{1, 2}, Cells: []MatValue{
			{Dims: []int{2, 2}, Bytes: []byte{0, 1, 1, 0}}, {Dims: []int{2, 2}, Bytes: []byte{1, 1, 0, 0}},
		}},
		{Name: "numclasses", Dims: []int{1, 1}},
		{Name: "classlabels", Dims: []int{1, 3}, Cells: []MatValue{
			{Dims: []int{1, 1}, Text: "0"}, {Dims: []int{1, 1}, Text: "A"}, {Dims: []int{0, 0}},
		}},
		{Name: "text", Dims: []int{1, 5}, Text: "héllo"},
		{Name: "odd", Dims: []int{1, 3}, Bytes: []byte{7, 8, 9}},
	}
	for _, o := range []formattest.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, compressed := range []bool{false, true} {
			in := sampleMAT(o, compressed)
			got, err := MAT(bytes.NewReader(in), int64(len(in)))
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%v, compressed %v: %+v, %v", o, compressed, got, err)
			}
		}
	}
}

func parseMAT(b []byte) error {
	_, err := MAT(bytes.NewReader(b), int64(len(b)))
	return err
}

// A file that is cut just behind a variable has the variables before the cut.
func TestMAT_RefusesEveryCut(t *testing.T) {
	o := binary.LittleEndian
	for _, compressed := range []bool{false, true} {
		in := sampleMAT(o, compressed)
		whole, err := MAT(bytes.NewReader(in), int64(len(in)))
		if err != nil {
			t.Fatal(err)
		}
		valid := 0
		for n := range in {
			got, err := MAT(bytes.NewReader(in[:n]), int64(n))
			if err == nil {
				valid++
				if n < matHeader || !reflect.DeepEqual(got, whole[:len(got):len(got)]) && len(got) > 0 {
					t.Fatalf("cut to %d: %+v", n, got)
				}
			} else if !errors.Is(err, ErrFormat) {
				t.Fatalf("cut to %d: %v", n, err)
			}
		}
		// Between any two variables, and where the last one's padding is missing.
		if valid < len(whole) || valid > 2*len(whole) {
			t.Errorf("%d cuts of %d variables are valid", valid, len(whole))
		}
	}
	broken := errors.New("broken disk")
	if _, err := MAT(failing{bytes.NewReader(nil), broken}, 100); !errors.Is(err, broken) || errors.Is(err, ErrFormat) {
		t.Errorf("broken disk: %v", err)
	}
}

func TestMAT_IsStrict(t *testing.T) {
	o := binary.LittleEndian
	header := func(version, mark uint16) []byte {
		b := formattest.MAT(o)
		o.PutUint16(b[124:], version)
		o.PutUint16(b[126:], mark)
		return b
	}
	cells := formattest.MATArray(o, mxUINT8, []int{1, 1}, "x", formattest.MATSmall(o, miUINT8, []byte{1}))
	for range matMaxDepth + 1 {
		cells = formattest.MATArray(o, mxCELL, []int{1, 1}, "c", cells)
	}
	u8 := func(dims []int, data ...byte) []byte {
		return formattest.MAT(o, formattest.MATArray(o, mxUINT8, dims, "x", formattest.MATElement(o, miUINT8, data)))
	}
	long := o.AppendUint32(o.AppendUint32(nil, miMATRIX), 1<<30)
	small := o.AppendUint32(o.AppendUint32(nil, 5<<16|miMATRIX), 0)
	flags := formattest.MATElement(o, miUINT32, make([]byte, 8))
	for _, c := range []struct {
		name string
		in   []byte
		text string
	}{
		{"short", make([]byte, 100), "byte 100: the MAT header ends early"},
		{"no mark", header(0x0100, 0), "byte 126: no mark of the byte order"},
		{"version 4", header(0x0400, 'M'<<8|'I'), "byte 124: MAT version 0x0400"},
		{"HDF5", header(0x0200, 'M'<<8|'I'), "version 7.3 (HDF5), which is not read; save it with -v7"},
		{"no array", formattest.MAT(o, formattest.MATElement(o, miUINT8, []byte{1})), "byte 128: data of type 2, want an array"},
		{"long element", formattest.MAT(o, long), "byte 128: an element of 1073741824 bytes where 0 are left"},
		{"long small element", formattest.MAT(o, small), "byte 128: a small element of 5 bytes"},
		{"flags", formattest.MAT(o, formattest.MATElement(o, miMATRIX, formattest.MATElement(o, miUINT32, []byte{9, 0, 0, 0}))), "byte 136: 4 bytes of array flags"},
		{"class", formattest.MAT(o, formattest.MATElement(o, miMATRIX, flags)), "byte 136: an array of class 0"},
		{"no dimensions", formattest.MAT(o, formattest.MATArray(o, mxUINT8, nil, "x")), "0 bytes of dimensions"},
		{"many dimensions", u8([]int{1, 1, 1, 1, 1, 1, 1, 1, 1}, 1), "36 bytes of dimensions"},
		{"negative", u8([]int{-1, 1}, 1), "dimensions [-1 1]"},
		{"product", u8([]int{1 << 30, 1 << 30}, 1), "dimensions [1073741824 1073741824]"},
		{"few values", u8([]int{2, 2}, 1, 2, 3), "3 uint8 values, want 4"},
		{"wrong type", formattest.MAT(o, formattest.MATArray(o, mxUINT8, []int{1, 1}, "x", formattest.MATElement(o, miINT32, make([]byte, 4)))), "data of type 5 for the uint8 values"},
		{"more values", formattest.MAT(o, formattest.MATArray(o, mxUINT8, []int{1, 1}, "x", formattest.MATElement(o, miUINT8, []byte{1}), formattest.MATElement(o, miUINT8, []byte{1}))), "more follows in the array"},
		{"lie of cells", formattest.MAT(o, formattest.MATArray(o, mxCELL, []int{1 << 14, 1 << 14}, "c")), "268435456 cells in 0 bytes"},
		{"some cells", formattest.MAT(o, formattest.MATArray(o, mxCELL, []int{1, 3}, "c", make([]byte, 32))), "byte"},
		{"depth", formattest.MAT(o, cells), "cells in cells"},
		{"characters", formattest.MAT(o, formattest.MATArray(o, mxCHAR, []int{1, 3}, "t", formattest.MATElement(o, miUTF8, []byte("ab")))), "characters that are not 3"},
		{"no text", formattest.MAT(o, formattest.MATArray(o, mxCHAR, []int{1, 1}, "t", formattest.MATElement(o, miUTF8, []byte{0xff}))), "characters"},
		{"half a character", formattest.MAT(o, formattest.MATArray(o, mxCHAR, []int{1, 1}, "t", formattest.MATElement(o, miUINT16, []byte{65}))), "characters"},
		{"name", formattest.MAT(o, formattest.MATArray(o, mxUINT8, []int{1, 1}, "\xff\xff\xff\xff\xff")), "the name"},
		{"bad zlib", formattest.MAT(o, formattest.MATElement(o, miCOMPRESSED, []byte("hello, world"))), "a compressed element: the file is damaged"},
		{"two in one", formattest.MAT(o, formattest.MATCompressed(o, append(u8([]int{1, 1}, 1)[matHeader:], make([]byte, 8)...))), "holds more than one element"},
		{"compressed twice", formattest.MAT(o, formattest.MATCompressed(o, formattest.MATCompressed(o, u8([]int{1, 1}, 1)[matHeader:]))), "want an array"},
	} {
		refuse(t, c.name, c.in, c.text, parseMAT)
	}
	if _, err := MAT(bytes.NewReader(nil), math.MaxInt64); !errors.Is(err, ErrFormat) {
		t.Errorf("a file that is too large: %v", err)
	}
}

// What decompresses to more than is allowed is given up at the limit.
func TestMAT_BoundsWhatItDecompresses(t *testing.T) {
	o := binary.LittleEndian
	in := formattest.MAT(o, formattest.MATCompressed(o, formattest.MATArray(o, mxUINT8, []int{1 << 20, 1}, "x", formattest.MATElement(o, miUINT8, make([]byte, 1<<20)))))
	m := matReader{order: o, left: 1 << 19}
	e, err := m.element(in, matHeader, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.inflate(e); !errors.Is(err, ErrFormat) {
		t.Errorf("got %v", err)
	}
	if v, err := MAT(bytes.NewReader(in), int64(len(in))); err != nil || !slices.Equal(v[0].Dims, []int{1 << 20, 1}) {
		t.Errorf("got %v", err)
	}
}

func FuzzMAT(f *testing.F) {
	f.Add(sampleMAT(binary.LittleEndian, false))
	f.Add(sampleMAT(binary.BigEndian, false))
	f.Add(sampleMAT(binary.LittleEndian, true))
	f.Fuzz(func(t *testing.T, in []byte) {
		values, err := MAT(bytes.NewReader(in), int64(len(in)))
		onlyErrFormat(t, err)
		for _, v := range values {
			checkMatValue(t, v)
		}
	})
}

func checkMatValue(t *testing.T, v MatValue) {
	t.Helper()
	n := 1
	for _, d := range v.Dims {
		n *= d
	}
	if v.Cells != nil && len(v.Cells) != n || v.Bytes != nil && len(v.Bytes) != n {
		t.Fatalf("%d cells and %d values in %v", len(v.Cells), len(v.Bytes), v.Dims)
	}
	for _, c := range v.Cells {
		checkMatValue(t, c)
	}
}
