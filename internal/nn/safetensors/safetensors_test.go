// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// file frames a header and data without checking either.
func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

// read returns the header and all values, bit for bit.
func read(r io.Reader) (Header, [][]float32, error) {
	f, err := NewReader(r)
	if err != nil {
		return Header{}, nil, err
	}
	var data [][]float32
	total := 0
	for _, t := range f.Header().Tensors {
		if total += t.Len; total > 1<<20 {
			return f.Header(), data, errors.New("too large for a test")
		}
		v := make([]float32, t.Len)
		if err := f.ReadNext(v); err != nil {
			return f.Header(), data, err
		}
		data = append(data, v)
	}
	if err := f.ReadNext(nil); !errors.Is(err, io.EOF) {
		return f.Header(), data, err
	}
	return f.Header(), data, f.Finish()
}

func example() (map[string]string, []Tensor) {
	long := make([]float32, 3*chunkValues+5)
	for i := range long {
		long[i] = float32(i)
	}
	return map[string]string{"model": `{"a":"<é>"}`, "b": "", "a\n": "2"}, []Tensor{
		{"z.weight", []int{2, 3}, []float32{0, -1, float32(math.NaN()), float32(math.Inf(1)), 0x1p-149, 1}},
		{"empty", []int{3, 0}, nil},
		{"scalar", nil, []float32{7}},
		{`odd "name"`, []int{len(long)}, long},
		{"empty too", []int{0}, nil},
	}
}

func TestWrittenFileIsPinned(t *testing.T) {
	var b bytes.Buffer
	err := Write(&b, map[string]string{"b": "2", "a": "1"}, []Tensor{{"w", []int{1, 2}, []float32{1, 2}}, {"b", []int{1}, []float32{-2}}})
	header := `{"__metadata__":{"a":"1","b":"2"},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},` +
		`"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}`
	header += strings.Repeat(" ", -len(header)&7)
	want := file(header, 0)
	want = append(want, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0, 0xc0)
	if err != nil || !bytes.Equal(b.Bytes(), want) {
		t.Errorf("got %q, %v", b.Bytes(), err)
	}
}

// Values of a machine that keeps them the other way round are turned on their way,
// and what is written stays as it was.
func TestSwapped(t *testing.T) {
	meta, tensors := example()
	var straight, turned bytes.Buffer
	if err := Write(&straight, meta, tensors); err != nil {
		t.Fatal(err)
	}
	swapped = !swapped
	defer func() { swapped = !swapped }()
	if err := Write(&turned, meta, tensors); err != nil {
		t.Fatal(err)
	}
	_, got, err := read(bytes.NewReader(turned.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for i, tensor := range tensors {
		if !bytes.Equal(bytesOf(got[i]), bytesOf(tensor.Data)) {
			t.Errorf("%s came back as others", tensor.Name)
		}
	}
	values := straight.Bytes()[8+binary.LittleEndian.Uint64(straight.Bytes()):]
	swap(values)
	if !bytes.Equal(straight.Bytes(), turned.Bytes()) {
		t.Error("the values of the file are not turned")
	}
}

func TestRoundTrip(t *testing.T) {
	meta, tensors := example()
	var b bytes.Buffer
	if err := Write(&b, meta, tensors); err != nil {
		t.Fatal(err)
	}
	if n, err := Size(meta, tensors); err != nil || n != int64(b.Len()) {
		t.Errorf("size %d, written %d, %v", n, b.Len(), err)
	}
	for name, r := range map[string]io.Reader{
		"whole":    bytes.NewReader(b.Bytes()),
		"one byte": iotest.OneByteReader(bytes.NewReader(b.Bytes())),
		"with EOF": iotest.DataErrReader(bytes.NewReader(b.Bytes())),
	} {
		header, data, err := read(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(header.Metadata, meta) {
			t.Errorf("%s: metadata %v", name, header.Metadata)
		}
		for i, want := range tensors {
			got := header.Tensors[i]
			if got.Name != want.Name || len(got.Shape) != len(want.Shape) || got.Len != len(want.Data) {
				t.Errorf("%s: tensor %d is %+v", name, i, got)
			}
			for j, v := range want.Data {
				if math.Float32bits(v) != math.Float32bits(data[i][j]) {
					t.Fatalf("%s: %s[%d] is %v, want %v", name, want.Name, j, data[i][j], v)
				}
			}
		}
	}
}

func TestTruncatedAnywhere(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, nil, []Tensor{{"a", []int{2}, []float32{1, 2}}, {"b", []int{1}, []float32{3}}}); err != nil {
		t.Fatal(err)
	}
	for n := range b.Len() {
		if _, _, err := read(bytes.NewReader(b.Bytes()[:n])); !errors.Is(err, ErrFormat) {
			t.Errorf("%d of %d bytes: %v", n, b.Len(), err)
		}
	}
	if _, _, err := read(bytes.NewReader(append(b.Bytes(), 0))); !errors.Is(err, ErrFormat) {
		t.Errorf("a byte too many: %v", err)
	}
	broken := errors.New("broken")
	_, _, err := read(io.MultiReader(bytes.NewReader(b.Bytes()[:b.Len()-1]), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || errors.Is(err, ErrFormat) {
		t.Errorf("an error of the stream: %v", err)
	}
}

func TestBadHeaders(t *testing.T) {
	tensor := func(fields string) string { return `{"w":{` + fields + `}}` }
	const dt, sh, of = `"dtype":"F32"`, `"shape":[2]`, `"data_offsets":[0,8]`
	for _, c := range []struct{ header, want string }{
		{``, "header of 0 bytes"},
		{`[]`, "does not start"},
		{` {}`, "does not start"},
		{`{} x`, "more than spaces"},
		{`{}{}`, "more than spaces"},
		{"{}\n", "more than spaces"},
		{`{"w"`, "ends early"},
		{`{"w":{`, "ends early"},
		{"{\"\xff\":1}", "not UTF-8"},
		{`{"w":1}`, `in place of "{"`},
		{tensor(dt + `,` + sh), "missing"},
		{tensor(dt + `,` + sh + `,` + of + `,"more":1`), "unknown field"},
		{tensor(`"DTYPE":"F32",` + sh + `,` + of), "unknown field"},
		{tensor(dt + `,` + dt + `,` + sh + `,` + of), "appears twice"},
		{tensor(`"dtype":"BF16",` + sh + `,` + of), `"BF16": only F32`},
		{tensor(`"dtype":3,` + sh + `,` + of), "in place of a string"},
		{tensor(dt + `,"shape":[-1],` + of), "not a number"},
		{tensor(dt + `,"shape":[2.0],` + of), "not a number"},
		{tensor(dt + `,"shape":[2e0],` + of), "not a number"},
		{tensor(dt + `,"shape":["2"],` + of), "not a number"},
		{tensor(dt + `,"shape":[9223372036854775808],` + of), "not a number"},
		{tensor(dt + `,"shape":[4294967296,4294967296,4294967296],` + of), "more than"},
		{tensor(dt + `,"shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],` + of), "more than 16"},
		{tensor(dt + `,"shape":2,` + of), `in place of "["`},
		{tensor(dt + `,` + sh + `,"data_offsets":[0]`), "1 numbers"},
		{tensor(dt + `,` + sh + `,"data_offsets":[0,8,8]`), "3 numbers"},
		{tensor(dt + `,` + sh + `,"data_offsets":[0,9]`), "from 0 to 9"},
		{tensor(dt + `,` + sh + `,"data_offsets":[8,0]`), "begins at 8"},
		{tensor(dt + `,` + sh + `,"data_offsets":[4,12]`), "begins at 4"},
		{tensor(dt + `,"shape":[99999999999999],"data_offsets":[0,399999999999996]`), "more than"},
		{`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, "begins at 4"},
		{`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}`, "appears twice"},
		{`{"__metadata__":{"a":1}}`, "in place of a string"},
		{`{"__metadata__":{"a":"1","a":"2"}}`, "appears twice"},
		{`{"__metadata__":{},"__metadata__":{}}`, "appears twice"},
	} {
		_, err := NewReader(bytes.NewReader(file(c.header, 64)))
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, got %v", c.header, c.want, err)
		}
	}
	huge := binary.LittleEndian.AppendUint64(nil, math.MaxUint64)
	if _, err := NewReader(bytes.NewReader(huge)); !errors.Is(err, ErrFormat) {
		t.Errorf("a header of 2^64-1 bytes: %v", err)
	}
}

// Header order is free: tensors are handed out in the order of their data.
func TestTensorsInDataOrder(t *testing.T) {
	const header = `{"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},` +
		`"e":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},"a":{"data_offsets":[0,4],"shape":[],"dtype":"F32"}}`
	r, err := NewReader(bytes.NewReader(file(header, 8)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, info := range r.Header().Tensors {
		names = append(names, info.Name)
	}
	if !reflect.DeepEqual(names, []string{"a", "e", "b"}) {
		t.Errorf("got %v", names)
	}
	if err := r.ReadNext(make([]float32, 2)); !errors.Is(err, ErrFormat) {
		t.Errorf("wrong length: %v", err)
	}
	if err := r.Finish(); err == nil || errors.Is(err, ErrFormat) {
		t.Errorf("finished before reading: %v", err)
	}
	for range 3 {
		if err := r.Skip(); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Skip(); !errors.Is(err, io.EOF) || r.Finish() != nil {
		t.Errorf("end: %v", err)
	}
}

func TestWriteRefuses(t *testing.T) {
	one := []float32{1}
	for name, tensors := range map[string][]Tensor{
		"length":     {{"a", []int{2}, one}},
		"negative":   {{"a", []int{-1}, one}},
		"twice":      {{"a", []int{1}, one}, {"a", []int{1}, one}},
		"reserved":   {{"__metadata__", []int{1}, one}},
		"not UTF-8":  {{"\xff", []int{1}, one}},
		"overflow":   {{"a", []int{1 << 30, 1 << 30, 1 << 30}, one}},
		"dimensions": {{"a", make([]int, MaxDimensions+1), nil}},
		"header":     {{strings.Repeat("a", MaxHeaderBytes), []int{1}, one}},
	} {
		var b bytes.Buffer
		if err := Write(&b, nil, tensors); !errors.Is(err, ErrFormat) || b.Len() != 0 {
			t.Errorf("%s: %v, %d bytes written", name, err, b.Len())
		}
	}
	if err := Write(io.Discard, map[string]string{"\xff": ""}, nil); !errors.Is(err, ErrFormat) {
		t.Errorf("metadata: %v", err)
	}
	if err := Write(iotestWriter{}, nil, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writer: %v", err)
	}
}

type iotestWriter struct{}

func (iotestWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestPropertyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		meta := rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "meta")
		names := rapid.SliceOfDistinct(rapid.String(), rapid.ID[string]).Draw(t, "names")
		var tensors []Tensor
		for i, name := range names {
			shape := rapid.SliceOfN(rapid.IntRange(0, 5), 0, 4).Draw(t, "shape")
			n, _ := product(shape)
			data := make([]float32, n)
			for j := range data {
				data[j] = float32(i*1000 + j)
			}
			tensors = append(tensors, Tensor{name, shape, data})
		}
		var b bytes.Buffer
		if err := Write(&b, meta, tensors); err != nil {
			t.Fatal(err)
		}
		header, data, err := read(&b)
		if err != nil || len(header.Tensors) != len(tensors) || len(header.Metadata) != len(meta) {
			t.Fatalf("%+v, %v", header, err)
		}
		// Empty tensors may change places with their neighbours, by offset.
		back := map[string][]float32{}
		for i, info := range header.Tensors {
			back[info.Name] = data[i]
		}
		for _, want := range tensors {
			got, ok := back[want.Name]
			if !ok || len(got) != len(want.Data) || len(got) > 0 && !reflect.DeepEqual(got, want.Data) {
				t.Fatalf("%q: %v, want %v", want.Name, got, want.Data)
			}
		}
	})
}

func FuzzReader(f *testing.F) {
	var b bytes.Buffer
	meta, tensors := example()
	tensors[3] = Tensor{"more", []int{3}, []float32{1, 2, 3}}
	if err := Write(&b, meta, tensors); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(file(`{}`, 0))
	f.Add(file(`{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  `, 8))
	f.Fuzz(func(t *testing.T, file []byte) {
		if len(file) > MaxHeaderBytes/8 {
			return // escaping may make a larger header than may be written
		}
		header, data, err := read(bytes.NewReader(file))
		if err != nil {
			return
		}
		// What can be read can be written, and reads the same again.
		var tensors []Tensor
		for i, info := range header.Tensors {
			tensors = append(tensors, Tensor{info.Name, info.Shape, data[i]})
		}
		var b bytes.Buffer
		if err := Write(&b, header.Metadata, tensors); err != nil {
			t.Fatal(err)
		}
		first := b.String()
		again, _, err := read(&b)
		if err != nil || len(again.Tensors) != len(header.Tensors) {
			t.Fatalf("%+v, then %+v, %v", header, again, err)
		}
		if n, err := Size(header.Metadata, tensors); err != nil || n != int64(len(first)) {
			t.Fatalf("size %d of %d, %v", n, len(first), err)
		}
	})
}
