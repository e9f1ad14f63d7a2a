// SPDX-License-Identifier: Apache-2.0

package format

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	npyMagic     = "\x93NUMPY"
	npyMaxHeader = 64 << 10
	npyMaxDims   = 8
	npyExtension = ".npy"
	// npzMaxArrays bounds the arrays of a file.
	npzMaxArrays = 1000
)

// NPZ is an open archive of NumPy arrays, as np.savez and np.savez_compressed
// write them.
type NPZ struct {
	entries map[string]*zip.File
	input   int64
}

// OpenNPZ reads the list of arrays. Their names are without ".npy".
func OpenNPZ(r io.ReaderAt, input int64) (*NPZ, error) {
	// Within a section an offset that the file makes up is its end, not an error
	// of the reader.
	z, err := zip.NewReader(io.NewSectionReader(r, 0, input), input)
	if err != nil {
		return nil, readError(err, "zip directory")
	}
	if len(z.File) > npzMaxArrays {
		return nil, badf("%d entries, at most %d are read", len(z.File), npzMaxArrays)
	}
	n := &NPZ{entries: map[string]*zip.File{}, input: input}
	for _, f := range z.File {
		name, isArray := strings.CutSuffix(f.Name, npyExtension)
		if !isArray {
			continue
		}
		if n.entries[name] != nil {
			return nil, badf("two arrays are called %s", name)
		}
		n.entries[name] = f
	}
	return n, nil
}

// Names lists the arrays in alphabetical order.
func (n *NPZ) Names() []string {
	var names []string
	for name := range n.entries {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Has reports whether all these arrays are there.
func (n *NPZ) Has(names ...string) bool {
	for _, name := range names {
		if n.entries[name] == nil {
			return false
		}
	}
	return true
}

// Bytes reads an array of uint8.
func (n *NPZ) Bytes(name string) (t Tensor, err error) {
	err = n.read(name, func(r io.Reader, input int64) error {
		t, err = NPYBytes(r, input)
		return err
	})
	return t, err
}

// Ints reads an array of whole numbers.
func (n *NPZ) Ints(name string) (values []int64, dims []int, err error) {
	err = n.read(name, func(r io.Reader, input int64) error {
		values, dims, err = NPYInts(r, input)
		return err
	})
	return values, dims, err
}

func (n *NPZ) read(name string, read func(r io.Reader, input int64) error) (err error) {
	f := n.entries[name]
	if f == nil {
		return badf("no array called %s", name)
	}
	r, err := f.Open()
	if err != nil {
		return readError(err, "array "+name)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	input := int64(min(f.CompressedSize64, uint64(n.input)))
	if err := read(r, input); err != nil {
		return fmt.Errorf("array %s: %w", name, err)
	}
	return nil
}

// npyHeader is what comes before the values of an array.
type npyHeader struct {
	kind    byte // of NumPy: u, i, f, b, ...
	size    int  // bytes of a value
	order   binary.ByteOrder
	dims    []int64
	fortran bool // the first index varies fastest
	values  int64
}

// npyDict is the header's text: a literal of Python with three fields in the
// order in which NumPy writes them, whatever its version.
var npyDict = regexp.MustCompile(`^\{'descr': '([<>|])([a-zA-Z])([0-9]{1,4})', 'fortran_order': (True|False), 'shape': \(((?:[0-9]{1,18}L?, )*[0-9]{0,18}L?,?)\),? ?\} *\n?$`)

// npyOther is a header of values with fields, of which only the type is shown.
var npyOther = regexp.MustCompile(`^\{'descr': ([^:]{1,60})`)

func readNPYHeader(r io.Reader) (npyHeader, error) {
	var h npyHeader
	var start [12]byte
	if _, err := io.ReadFull(r, start[:8]); err != nil {
		return h, readError(err, "byte 0, the NPY header")
	}
	if string(start[:6]) != npyMagic {
		return h, badf("byte 0: it starts with %.6q, not with %q", start[:6], npyMagic)
	}
	var length int64
	at := 10
	switch start[6] {
	case 1:
		if _, err := io.ReadFull(r, start[8:10]); err != nil {
			return h, readError(err, "byte 8, the NPY header")
		}
		length = int64(binary.LittleEndian.Uint16(start[8:]))
	case 2, 3:
		if _, err := io.ReadFull(r, start[8:12]); err != nil {
			return h, readError(err, "byte 8, the NPY header")
		}
		length, at = int64(binary.LittleEndian.Uint32(start[8:])), 12
	default:
		return h, badf("byte 6: NPY version %d, want 1 to 3", start[6])
	}
	if length > npyMaxHeader {
		return h, badf("byte 8: an NPY header of %d bytes, want at most %d", length, npyMaxHeader)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return h, readError(err, fmt.Sprintf("byte %d, the NPY header", at))
	}
	m := npyDict.FindSubmatch(text)
	if m == nil {
		if m := npyOther.FindSubmatch(text); m != nil {
			return h, badf("byte %d: values of type %s in a form that is not read", at, m[1])
		}
		return h, badf("byte %d: the NPY header is %.80q", at, text)
	}
	h.kind = m[2][0]
	var err error
	if h.size, err = strconv.Atoi(string(m[3])); err != nil || h.size < 1 {
		return h, badf("byte %d: values of %s bytes", at, m[3])
	}
	h.order = binary.LittleEndian
	if m[1][0] == '>' {
		h.order = binary.BigEndian
	}
	h.fortran = m[4][0] == 'T'
	shape := strings.FieldsFunc(string(m[5]), func(c rune) bool { return c == ',' || c == ' ' })
	if len(shape) > npyMaxDims {
		return h, badf("byte %d: %d dimensions, want at most %d", at, len(shape), npyMaxDims)
	}
	for _, field := range shape {
		d, err := strconv.ParseInt(strings.TrimSuffix(field, "L"), 10, 64)
		if err != nil {
			return h, badf("byte %d: dimensions (%s)", at, m[5])
		}
		h.dims = append(h.dims, d)
	}
	var ok bool
	if h.values, ok = product(h.dims, MaxBytes/int64(h.size)); !ok {
		return h, badf("byte %d: dimensions %v are more than %d bytes", at, h.dims, int64(MaxBytes))
	}
	return h, nil
}

// typeName is NumPy's name of the type.
func (h npyHeader) typeName() string {
	kinds := map[byte]string{'u': "uint", 'i': "int", 'f': "float", 'c': "complex"}
	if kind := kinds[h.kind]; kind != "" {
		return fmt.Sprint(kind, 8*h.size)
	}
	if h.kind == 'b' {
		return "bool"
	}
	return fmt.Sprintf("%c%d", h.kind, h.size)
}

// NPYBytes reads an array of uint8 of either index order. One in Fortran's
// order, with the first index the fastest, is turned in memory.
func NPYBytes(r io.Reader, input int64) (Tensor, error) {
	h, err := readNPYHeader(r)
	if err != nil {
		return Tensor{}, err
	}
	if h.kind != 'u' || h.size != 1 {
		hint := "convert with .astype('uint8')"
		if h.kind == 'f' {
			hint = "bring values from 0..1 to 0..255 and convert with (255 * x).round().astype('uint8')"
		}
		return Tensor{}, badf("values are %s, want uint8; %s", h.typeName(), hint)
	}
	data, err := h.data(r, input)
	if err != nil {
		return Tensor{}, err
	}
	if h.fortran && len(h.dims) > 1 {
		data = reversed(data, h.dims)
	}
	return tensor(h.dims, data), nil
}

// NPYInts reads an array of whole numbers of any width; one of more than one
// dimension must be in C's order, where the last index is the fastest.
func NPYInts(r io.Reader, input int64) ([]int64, []int, error) {
	h, err := readNPYHeader(r)
	if err != nil {
		return nil, nil, err
	}
	if h.kind != 'u' && h.kind != 'i' || !slices.Contains([]int{1, 2, 4, 8}, h.size) {
		return nil, nil, badf("values are %s, want whole numbers; convert with .astype('int64')", h.typeName())
	}
	long := 0
	for _, d := range h.dims {
		if d > 1 {
			long++
		}
	}
	if h.fortran && long > 1 {
		return nil, nil, badf("whole numbers of %d dimensions in Fortran's order", len(h.dims))
	}
	data, err := h.data(r, input)
	if err != nil {
		return nil, nil, err
	}
	values := make([]int64, h.values)
	for i := range values {
		var v uint64
		switch b := data[i*h.size:]; h.size {
		case 1:
			v = uint64(b[0])
		case 2:
			v = uint64(h.order.Uint16(b))
		case 4:
			v = uint64(h.order.Uint32(b))
		default:
			v = h.order.Uint64(b)
		}
		if h.kind == 'i' { // extend the sign
			shift := 64 - 8*h.size
			values[i] = int64(v<<shift) >> shift
			continue
		}
		if values[i] = int64(v); values[i] < 0 {
			return nil, nil, badf("value %d is %d, out of range", i, v)
		}
	}
	return values, tensor(h.dims, nil).Dims, nil
}

func (h npyHeader) data(r io.Reader, input int64) ([]byte, error) {
	data, err := fill(r, h.values*int64(h.size), input)
	if err != nil {
		return nil, readError(err, "values")
	}
	return data, ended(r, "values")
}

// reversed turns an array whose first index varies fastest into one whose last
// does.
func reversed(data []byte, dims []int64) []byte {
	if len(data) == 0 {
		return data
	}
	// step[i] is how far apart neighbours along i are in data.
	step, index := make([]int64, len(dims)), make([]int64, len(dims))
	size := int64(1)
	for i, d := range dims {
		step[i] = size
		size *= d
	}
	out := make([]byte, len(data))
	last := len(dims) - 1
	from := int64(0)
	for to := 0; to < len(out); {
		at := from
		for range dims[last] {
			out[to] = data[at]
			at += step[last]
			to++
		}
		for i := last - 1; i >= 0; i-- {
			index[i]++
			from += step[i]
			if index[i] < dims[i] {
				break
			}
			from -= index[i] * step[i]
			index[i] = 0
		}
	}
	return out
}
