// SPDX-License-Identifier: Apache-2.0

package format

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
)

// What follows writes each format a second time, for the tests alone.

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	must(err)
	must(z.Close())
	return out.Bytes()
}

func makeIDX(dims []int, data []byte) []byte {
	b := []byte{0, 0, 8, byte(len(dims))}
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, uint32(d))
	}
	return append(b, data...)
}

// counting are n bytes that differ from their neighbours.
func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + i>>8)
	}
	return b
}

type entry struct {
	name string
	data []byte
}

func makeTar(entries ...entry) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		must(w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.data)), Typeflag: tar.TypeReg}))
		_, err := w.Write(e.data)
		must(err)
	}
	must(w.Close())
	return out.Bytes()
}

// matOrder is a byte order in which numbers can be appended.
type matOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func makeElement(o matOrder, kind int, data []byte) []byte {
	b := o.AppendUint32(nil, uint32(kind))
	b = o.AppendUint32(b, uint32(len(data)))
	b = append(b, data...)
	return append(b, make([]byte, (8-len(b)%8)%8)...)
}

func makeSmall(o matOrder, kind int, data []byte) []byte {
	b := o.AppendUint32(nil, uint32(len(data)<<16|kind))
	return append(append(b, data...), make([]byte, 4-len(data))...)
}

func makeArray(o matOrder, class int, dims []int, name string, rest ...[]byte) []byte {
	flags := o.AppendUint32(o.AppendUint32(nil, uint32(class)), 0)
	var sizes []byte
	for _, d := range dims {
		sizes = o.AppendUint32(sizes, uint32(int32(d)))
	}
	b := append(makeElement(o, miUINT32, flags), makeElement(o, miINT32, sizes)...)
	if name != "" && len(name) <= 4 {
		b = append(b, makeSmall(o, miINT8, []byte(name))...)
	} else {
		b = append(b, makeElement(o, miINT8, []byte(name))...)
	}
	return makeElement(o, miMATRIX, append(b, bytes.Join(rest, nil)...))
}

func makeMAT(o matOrder, elements ...[]byte) []byte {
	b := append([]byte("MATLAB 5.0 MAT-file"), bytes.Repeat([]byte{' '}, 105)...)
	b = o.AppendUint16(b, 0x0100)
	b = o.AppendUint16(b, 'M'<<8|'I')
	return append(b, bytes.Join(elements, nil)...)
}

func makeCompressed(o matOrder, element []byte) []byte {
	var out bytes.Buffer
	z := zlib.NewWriter(&out)
	_, err := z.Write(element)
	must(err)
	must(z.Close())
	b := o.AppendUint32(o.AppendUint32(nil, miCOMPRESSED), uint32(out.Len()))
	return append(b, out.Bytes()...)
}

func makeNPY(descr string, fortran bool, shape string, data []byte) []byte {
	order := "False"
	if fortran {
		order = "True"
	}
	text := fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }", descr, order, shape)
	text += strings.Repeat(" ", 63-(10+len(text))%64) + "\n"
	b := append([]byte(npyMagic), 1, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(text)))
	return append(append(b, text...), data...)
}

func makeNPZ(method uint16, entries ...entry) []byte {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, e := range entries {
		f, err := w.CreateHeader(&zip.FileHeader{Name: e.name, Method: method})
		must(err)
		_, err = f.Write(e.data)
		must(err)
	}
	must(w.Close())
	return out.Bytes()
}

// boundBytes is what invariant 2 allows a parser of an input to allocate: a
// constant for its buffers and the tables of inflate, and a multiple of the
// input.
func boundBytes(input int) uint64 { return 1<<20 + 64*uint64(input) }

// allocated is how many bytes a call allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// refuse checks that a parser refuses its input with an ErrFormat that has the
// text, and allocates no more than the input's size allows.
func refuse(t *testing.T, name string, input []byte, text string, parse func(b []byte) error) {
	t.Helper()
	var err error
	if n := allocated(func() { err = parse(input) }); n > boundBytes(len(input)) {
		t.Errorf("%s: %d bytes allocated for an input of %d", name, n, len(input))
	}
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got %v, want an ErrFormat with %q", name, err, text)
	}
}

// failing is a reader whose disk breaks after some bytes.
type failing struct {
	r   io.Reader
	err error
}

func (f failing) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if errors.Is(err, io.EOF) {
		err = f.err
	}
	return n, err
}

// everyCut checks that a parser refuses every shortened form of a valid input
// and passes the errors of a broken disk on.
func everyCut(t *testing.T, valid []byte, parse func(r io.Reader) error) {
	t.Helper()
	if err := parse(bytes.NewReader(valid)); err != nil {
		t.Fatalf("the whole input: %v", err)
	}
	broken := errors.New("broken disk")
	for n := range valid {
		if err := parse(bytes.NewReader(valid[:n])); !errors.Is(err, ErrFormat) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(valid), err)
		}
		if err := parse(failing{bytes.NewReader(valid[:n]), broken}); !errors.Is(err, broken) && !errors.Is(err, ErrFormat) {
			t.Fatalf("broken at %d of %d bytes: %v", n, len(valid), err)
		}
	}
	if err := parse(failing{bytes.NewReader(nil), broken}); !errors.Is(err, broken) || errors.Is(err, ErrFormat) {
		t.Errorf("broken at the start: %v", err)
	}
}

// onlyErrFormat is what fuzzing checks of an error: nothing but the bytes can be
// wrong.
func onlyErrFormat(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrFormat) {
		t.Fatalf("%v is no ErrFormat", err)
	}
}
