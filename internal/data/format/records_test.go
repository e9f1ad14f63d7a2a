// SPDX-License-Identifier: Apache-2.0

package format

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"disdel/internal/data/format/formattest"
)

// collect gathers what a reader of records finds.
func collect(read func(each func([]byte) error) error) (images []byte, count int, err error) {
	err = read(func(image []byte) error {
		images = append(images, image...)
		count++
		return nil
	})
	return images, count, err
}

func npzRecords(file []byte, name string, want Shape) (images []byte, count int, err error) {
	z, err := OpenNPZ(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, 0, err
	}
	return collect(func(each func([]byte) error) error { return z.Records(name, want, each) })
}

func TestNPZRecords(t *testing.T) {
	values := formattest.Counting(24)
	for _, method := range []uint16{zip.Store, zip.Deflate} {
		for shape, want := range map[string]Shape{"2, 3, 4": {3, 4, 1}, "2, 3, 2, 2": {3, 2, 2}, "4, 1, 2, 3": {1, 2, 3}} {
			file := formattest.NPZ(method, formattest.File("x.npy", formattest.NPY("|u1", false, shape, values)))
			images, count, err := npzRecords(file, "x", want)
			if err != nil || !bytes.Equal(images, values) || count != 24/want.Bytes() {
				t.Errorf("%s: %d images %v, %v", shape, count, images, err)
			}
		}
	}
	for _, c := range []struct {
		npy  []byte
		says string
	}{
		{formattest.NPY("|u1", false, "2, 3, 4", values), "images of 3x4x1, want 2x2x1"},
		{formattest.NPY("|u1", false, "24", values), "1 dimensions, want 3 or 4"},
		{formattest.NPY("<f4", false, "1, 2, 2", make([]byte, 16)), "float32, want uint8"},
		{formattest.NPY("|u1", true, "2, 2, 2", values[:8]), "Fortran's order; save numpy.ascontiguousarray"},
		{formattest.NPY("|u1", false, "7, 2, 2", values), "image 6: the file ends early"},
		{formattest.NPY("|u1", false, "5, 2, 2", values), "more bytes follow"},
		{formattest.NPY("|u1", false, "99999999999, 2, 2", values), "are more than"},
		{[]byte("x"), "the file ends early"},
	} {
		_, _, err := npzRecords(formattest.NPZ(zip.Store, formattest.File("x.npy", c.npy)), "x", Shape{2, 2, 1})
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
	file := formattest.NPZ(zip.Store, formattest.File("x.npy", formattest.NPY("|u1", false, "6, 2, 2", values)))
	z, err := OpenNPZ(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	if err := z.Records("x", Shape{2, 2, 1}, func([]byte) error { calls++; return io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestCSVRecords(t *testing.T) {
	want := Shape{1, 3, 1}
	pixels := []byte{1, 2, 3, 255, 0, 6}
	for _, text := range []string{
		"7,1,2,3\n8,255,0,6\n", "1,2,3\n255,0,6", "a,b,c\n1,2,3\n255,0,6\n", "1,2,3,cat\n255,0,6,dog\n",
		"p,q,LABEL,r\n1,2,cat,3\n255,0,,6\n", "\xef\xbb\xbf# shape: 1x3x1\n\n# about\n1, \"2\" ,3\r\n255,0,6\r\n",
	} {
		if strings.Contains(text, "3,cat") {
			text = "p,q,r,label\n" + text
		}
		for _, file := range [][]byte{[]byte(text), formattest.Gzip([]byte(text))} {
			images, count, err := collect(func(each func([]byte) error) error { return CSVRecords(bytes.NewReader(file), want, each) })
			if err != nil || !bytes.Equal(images, pixels) || count != 2 {
				t.Errorf("%q: %d images %v, %v", text, count, images, err)
			}
		}
	}
	for text, says := range map[string]string{
		"1,2\n":                   "line 1: 2 columns, want 3 for images of 1x3x1, or one more with a label",
		"1,2,3\n1,2\n":            "line 2: 2 fields, want 3",
		"1,2,3\n1,2,3,4\n":        "line 2: more than 3 fields",
		"1,2,3\n1,256,3\n":        `line 2: field 2 is "256", want a whole number of 0 to 255`,
		"1,2,3\n1,,3\n":           `line 2: field 2 is ""`,
		"label,2,3\n":             "line 1: 2 columns beside the label, want 3",
		"# shape: 3x3\n1,2,3":     "line 1: images of 3x3x1, want 1x3x1",
		"# shape: 3\n1,2,3":       "line 1: shape",
		"\x1f\x8b\x08garbage\xff": "", // a gzip header that is none
	} {
		_, _, err := collect(func(each func([]byte) error) error { return CSVRecords(strings.NewReader(text), want, each) })
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
	if err := CSVRecords(strings.NewReader("1,2,3\n"), want, func([]byte) error { return io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}

// FuzzCSVRecords: where CSV reads a file as training data, CSVRecords reads the
// same images.
func FuzzCSVRecords(f *testing.F) {
	for _, text := range []string{"7,1,2,3\n8,255,0,6\n", "a,b,c\n1,2,3\n", "# shape: 1x3x1\nlabel,a,b,c\nx,1,2,3", "1,2,3"} {
		f.Add([]byte(text))
	}
	want := Shape{1, 3, 1}
	f.Fuzz(func(t *testing.T, file []byte) {
		table, tableErr := CSV(bytes.NewReader(file), nil)
		images, count, err := collect(func(each func([]byte) error) error { return CSVRecords(bytes.NewReader(file), want, each) })
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Fatalf("not about the format: %v", err)
		}
		if len(images) != count*want.Bytes() {
			t.Fatalf("%d bytes for %d images", len(images), count)
		}
		if tableErr == nil && table.Shape == want && (err != nil || !bytes.Equal(images, table.Pixels)) {
			t.Fatalf("read as training data %v, as images %v, %v", table.Pixels, images, err)
		}
	})
}

// FuzzNPZRecords: where Bytes reads an array in C's order, Records reads the same.
func FuzzNPZRecords(f *testing.F) {
	for _, method := range []uint16{zip.Store, zip.Deflate} {
		f.Add(formattest.NPZ(method, formattest.File("x.npy", formattest.NPY("|u1", false, "2, 2, 2", formattest.Counting(8)))))
	}
	f.Add(formattest.NPZ(zip.Store, formattest.File("x.npy", formattest.NPY("|u1", true, "2, 2, 2, 1", formattest.Counting(8)))))
	want := Shape{2, 2, 1}
	f.Fuzz(func(t *testing.T, file []byte) {
		images, count, err := npzRecords(file, "x", want)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("not about the format: %v", err)
			}
			return
		}
		z, err := OpenNPZ(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		whole, err := z.Bytes("x")
		if err != nil || !bytes.Equal(whole.Data, images) || whole.Dims[0] != count {
			t.Fatalf("%d images %v; the array is %v, %v", count, images, whole, err)
		}
	})
}

func TestWriteNPZ(t *testing.T) {
	labels := make([]uint16, 5000)
	wide := make([]int64, len(labels))
	for i := range labels {
		labels[i], wide[i] = uint16(13*i), int64(uint16(13*i))
	}
	pixels := formattest.Counting(24)
	write := func(w io.Writer) error {
		return WriteNPZ(w, NPZArray{Name: "x", Dims: []int{2, 3, 4, 1}, Bytes: pixels}, NPZArray{Name: "y", Dims: []int{len(labels)}, Labels: labels})
	}
	var file, again bytes.Buffer
	if err := errors.Join(write(&file), write(&again)); err != nil || !bytes.Equal(file.Bytes(), again.Bytes()) {
		t.Fatalf("not the same twice: %v", err)
	}
	z, err := OpenNPZ(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	x, err := z.Bytes("x")
	if err != nil || !slices.Equal(x.Dims, []int{2, 3, 4, 1}) || !bytes.Equal(x.Data, pixels) {
		t.Errorf("x is %v, %v", x, err)
	}
	y, dims, err := z.Ints("y")
	if err != nil || !slices.Equal(dims, []int{len(labels)}) || !slices.Equal(y, wide) {
		t.Errorf("y is %v of %v, %v", y[:min(len(y), 5)], dims, err)
	}
	// The header is what NumPy itself writes.
	plain, err := zip.NewReader(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	entry, err := plain.Open("x.npy")
	if err != nil {
		t.Fatal(err)
	}
	defer entry.Close()
	raw, err := io.ReadAll(entry)
	if want := formattest.NPY("|u1", false, "2, 3, 4, 1", pixels); err != nil || !bytes.Equal(raw, want) {
		t.Errorf("x.npy is\n%q, want\n%q", raw, want)
	}
	for room := range 3 {
		if err := write(&narrow{room: room * file.Len() / 3}); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("a full disk: %v", err)
		}
	}
}

// narrow is a writer that takes room bytes.
type narrow struct{ room int }

func (n *narrow) Write(b []byte) (int, error) {
	if len(b) > n.room {
		return 0, io.ErrShortWrite
	}
	n.room -= len(b)
	return len(b), nil
}
