// SPDX-License-Identifier: Apache-2.0

package formattest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"strings"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Gzip compresses.
func Gzip(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	must(err)
	must(z.Close())
	return out.Bytes()
}

// IDX writes an array of unsigned bytes.
func IDX(dims []int, data []byte) []byte {
	b := []byte{0, 0, 8, byte(len(dims))}
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, uint32(d))
	}
	return append(b, data...)
}

// Counting returns n bytes that differ from their neighbours.
func Counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + i>>8)
	}
	return b
}

// Entry is a file of an archive.
type Entry struct {
	Name string
	Data []byte
}

// File makes an entry.
func File(name string, data []byte) Entry { return Entry{name, data} }

// Tar writes an archive.
func Tar(entries ...Entry) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		must(w.WriteHeader(&tar.Header{Name: e.Name, Mode: 0o644, Size: int64(len(e.Data)), Typeflag: tar.TypeReg}))
		_, err := w.Write(e.Data)
		must(err)
	}
	must(w.Close())
	return out.Bytes()
}

// ByteOrder is a byte order in which numbers can be appended.
type ByteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// MATElement writes a tag and data of a type, padded.
func MATElement(o ByteOrder, kind int, data []byte) []byte {
	b := o.AppendUint32(nil, uint32(kind))
	b = o.AppendUint32(b, uint32(len(data)))
	b = append(b, data...)
	return append(b, make([]byte, (8-len(b)%8)%8)...)
}

// MATSmall writes an element of up to four bytes in its short form.
func MATSmall(o ByteOrder, kind int, data []byte) []byte {
	b := o.AppendUint32(nil, uint32(len(data)<<16|kind))
	return append(append(b, data...), make([]byte, 4-len(data))...)
}

// MATArray writes an array of a class; rest are the elements behind its name.
func MATArray(o ByteOrder, class int, dims []int, name string, rest ...[]byte) []byte {
	flags := o.AppendUint32(o.AppendUint32(nil, uint32(class)), 0)
	var sizes []byte
	for _, d := range dims {
		sizes = o.AppendUint32(sizes, uint32(int32(d)))
	}
	b := append(MATElement(o, 6, flags), MATElement(o, 5, sizes)...)
	if name != "" && len(name) <= 4 {
		b = append(b, MATSmall(o, 1, []byte(name))...)
	} else {
		b = append(b, MATElement(o, 1, []byte(name))...)
	}
	return MATElement(o, 14, append(b, bytes.Join(rest, nil)...))
}

// MAT writes a file of elements.
func MAT(o ByteOrder, elements ...[]byte) []byte {
	b := append([]byte("MATLAB 5.0 MAT-file"), bytes.Repeat([]byte{' '}, 105)...)
	b = o.AppendUint16(b, 0x0100)
	b = o.AppendUint16(b, 'M'<<8|'I')
	return append(b, bytes.Join(elements, nil)...)
}

// MATCompressed compresses an element.
func MATCompressed(o ByteOrder, element []byte) []byte {
	var out bytes.Buffer
	z := zlib.NewWriter(&out)
	_, err := z.Write(element)
	must(err)
	must(z.Close())
	b := o.AppendUint32(o.AppendUint32(nil, 15), uint32(out.Len()))
	return append(b, out.Bytes()...)
}

// NPY writes an array whose type and shape are in NumPy's form: "|u1", "2, 3".
func NPY(descr string, fortran bool, shape string, data []byte) []byte {
	order := "False"
	if fortran {
		order = "True"
	}
	text := fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }", descr, order, shape)
	text += strings.Repeat(" ", 63-(10+len(text))%64) + "\n"
	b := append([]byte("\x93NUMPY"), 1, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(text)))
	return append(append(b, text...), data...)
}

// NPZ writes an archive with a compression method of package zip.
func NPZ(method uint16, entries ...Entry) []byte {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, e := range entries {
		f, err := w.CreateHeader(&zip.FileHeader{Name: e.Name, Method: method})
		must(err)
		_, err = f.Write(e.Data)
		must(err)
	}
	must(w.Close())
	return out.Bytes()
}
