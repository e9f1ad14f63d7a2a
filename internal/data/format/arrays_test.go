// SPDX-License-Identifier: Apache-2.0

package format

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"disdel/internal/data/format/formattest"
)

func TestIDX_ReadsWhatIsThere(t *testing.T) {
	for _, dims := range [][]int{{5}, {2, 3, 4}, {2, 3, 4, 3}, {0}, {2, 0, 4}} {
		size := 1
		for _, d := range dims {
			size *= d
		}
		file := formattest.IDX(dims, formattest.Counting(size))
		for name, in := range map[string][]byte{"plain": file, "gzip": formattest.Gzip(file)} {
			got, err := IDX(bytes.NewReader(in), int64(len(in)))
			if err != nil || !slices.Equal(got.Dims, dims) || !bytes.Equal(got.Data, formattest.Counting(size)) {
				t.Errorf("%s %v: %v, %v", name, dims, got, err)
			}
		}
	}
}

// More than the first allocation believes has to arrive whole too.
func TestIDX_GrowsWithWhatIsThere(t *testing.T) {
	data := make([]byte, 2<<20)
	for i := 0; i < len(data); i += 4096 {
		data[i] = byte(i >> 12)
	}
	in := formattest.Gzip(formattest.IDX([]int{2, 1024, 1024}, data))
	if int64(len(data)) <= believed(int64(len(in))) {
		t.Fatal("the input does not compress well enough for this test")
	}
	got, err := IDX(bytes.NewReader(in), int64(len(in)))
	if err != nil || !bytes.Equal(got.Data, data) {
		t.Errorf("%d of %d bytes, %v", len(got.Data), len(data), err)
	}
}

func parseIDX(b []byte) error {
	_, err := IDX(bytes.NewReader(b), int64(len(b)))
	return err
}

func TestIDX_IsStrict(t *testing.T) {
	good := formattest.IDX([]int{2, 2}, formattest.Counting(4))
	everyCut(t, good, func(r io.Reader) error { _, err := IDX(r, int64(len(good))); return err })
	everyCut(t, formattest.Gzip(good), func(r io.Reader) error { _, err := IDX(r, int64(len(good))); return err })

	float := bytes.Clone(good)
	float[2] = 0x0d
	damaged := formattest.Gzip(good)
	damaged[len(damaged)-5] ^= 1 // the checksum
	for _, c := range []struct {
		name string
		in   []byte
		text string
	}{
		{"text", []byte("<html>"), `byte 0: it starts with 3c 68`},
		{"floats", float, "byte 2: values of IDX type 0x0d"},
		{"no dimensions", []byte{0, 0, 8, 0}, "byte 3: 0 dimensions"},
		{"many dimensions", formattest.IDX([]int{1, 1, 1, 1, 1}, []byte{1}), "byte 3: 5 dimensions"},
		{"more", append(bytes.Clone(good), 0), "more bytes follow"},
		{"lie", formattest.IDX([]int{1 << 20, 28, 28}, formattest.Counting(100)), "the file ends early"},
		{"lie in gzip", formattest.Gzip(formattest.IDX([]int{1 << 20, 28, 28}, formattest.Counting(100))), "the file ends early"},
		{"big lie", formattest.IDX([]int{math.MaxUint32, 28, 28}, nil), "byte 4: dimensions"},
		{"huge lie", formattest.IDX([]int{math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxUint32}, nil), "byte 4: dimensions"},
		{"gzip's checksum", damaged, "the file is damaged"},
		{"after gzip", append(formattest.Gzip(good), 1, 2, 3), "the file"},
		{"no gzip", []byte{0x1f, 0x8b, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9}, "gzip header: the file is damaged"},
	} {
		refuse(t, c.name, c.in, c.text, parseIDX)
	}
}

func FuzzIDX(f *testing.F) {
	f.Add(formattest.IDX([]int{2, 2}, formattest.Counting(4)))
	f.Add(formattest.Gzip(formattest.IDX([]int{3}, formattest.Counting(3))))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := IDX(bytes.NewReader(in), int64(len(in)))
		onlyErrFormat(t, err)
		if err == nil && in[0] == 0 && !bytes.Equal(formattest.IDX(got.Dims, got.Data), in) {
			t.Fatalf("read as %v", got)
		}
	})
}

func TestNPYBytes_BothIndexOrders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dims := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 4).Draw(t, "dims")
		size, shape := 1, ""
		for _, d := range dims {
			size *= d
			shape += fmt.Sprint(d, ", ")
		}
		shape = shape[:len(shape)-1] // NumPy's form: (2, 3), and (2,) alone
		if len(dims) > 1 {
			shape = shape[:len(shape)-1]
		}
		c := formattest.Counting(size)
		// The same values with the first index the fastest, by the definition.
		fortran := make([]byte, size)
		for at := range c {
			rest, to, step := at, 0, size
			for i := len(dims) - 1; i >= 0; i-- {
				step /= dims[i]
				to += rest % dims[i] * step
				rest /= dims[i]
			}
			fortran[to] = c[at]
		}
		for _, in := range [][]byte{formattest.NPY("|u1", false, shape, c), formattest.NPY("|u1", true, shape, fortran)} {
			got, err := NPYBytes(bytes.NewReader(in), int64(len(in)))
			if err != nil || !slices.Equal(got.Dims, dims) || !bytes.Equal(got.Data, c) {
				t.Fatalf("%v: %v, %v", dims, got, err)
			}
		}
	})
}

func TestNPYInts_EveryWidth(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	for _, c := range []struct {
		descr string
		data  []byte
		want  []int64
	}{
		{"|u1", []byte{0, 255}, []int64{0, 255}},
		{"|i1", []byte{1, 255}, []int64{1, -1}},
		{"<u2", le.AppendUint16([]byte{1, 0}, math.MaxUint16), []int64{1, math.MaxUint16}},
		{"<i4", le.AppendUint32([]byte{1, 0, 0, 0}, math.MaxUint32), []int64{1, -1}},
		{">i8", be.AppendUint64(be.AppendUint64(nil, 7), math.MaxUint64), []int64{7, -1}},
		{"<u8", le.AppendUint64(le.AppendUint64(nil, 7), math.MaxInt64), []int64{7, math.MaxInt64}},
	} {
		in := formattest.NPY(c.descr, false, "2,", c.data)
		got, dims, err := NPYInts(bytes.NewReader(in), int64(len(in)))
		if err != nil || !slices.Equal(got, c.want) || !slices.Equal(dims, []int{2}) {
			t.Errorf("%s: %v %v, %v", c.descr, got, dims, err)
		}
	}
	column := formattest.NPY("|u1", true, "3, 1", []byte{1, 2, 3})
	if got, dims, err := NPYInts(bytes.NewReader(column), 100); err != nil || !slices.Equal(got, []int64{1, 2, 3}) || len(dims) != 2 {
		t.Errorf("a column in Fortran's order: %v %v, %v", got, dims, err)
	}
}

func TestNPY_IsStrict(t *testing.T) {
	good := formattest.NPY("|u1", false, "2, 2", formattest.Counting(4))
	everyCut(t, good, func(r io.Reader) error { _, err := NPYBytes(r, int64(len(good))); return err })
	version2 := append([]byte(npyMagic), 2, 0)
	version2 = append(binary.LittleEndian.AppendUint32(version2, uint32(len(good)-4-10)), good[10:len(good)-4]...)
	if err := parseNPYBytes(append(bytes.Clone(version2), formattest.Counting(4)...)); err != nil {
		t.Errorf("version 2: %v", err)
	}
	binary.LittleEndian.PutUint32(version2[8:], math.MaxUint32)

	version9 := bytes.Clone(good)
	version9[6] = 9
	for _, c := range []struct {
		name  string
		in    []byte
		text  string
		parse func([]byte) error
	}{
		{"text", []byte("hello, world"), "byte 0: it starts with", parseNPYBytes},
		{"version", version9, "byte 6: NPY version 9", parseNPYBytes},
		{"long header", version2, "byte 8: an NPY header of 4294967295 bytes", parseNPYBytes},
		{"float32 images", formattest.NPY("<f4", false, "2,", formattest.Counting(8)), "values are float32, want uint8; bring values from 0..1 to 0..255", parseNPYBytes},
		{"int64 images", formattest.NPY("<i8", false, "1,", formattest.Counting(8)), "values are int64, want uint8; convert with .astype('uint8')", parseNPYBytes},
		{"bool images", formattest.NPY("|b1", false, "1,", formattest.Counting(1)), "values are bool", parseNPYBytes},
		{"float labels", formattest.NPY("<f8", false, "1,", formattest.Counting(8)), "values are float64, want whole numbers", parseNPYInts},
		{"text labels", formattest.NPY("<U4", false, "1,", formattest.Counting(16)), "values are U4", parseNPYInts},
		{"wide labels", formattest.NPY("<i16", false, "1,", formattest.Counting(16)), "values are int128", parseNPYInts},
		{"unsigned labels", formattest.NPY("<u8", false, "1,", bytes.Repeat([]byte{255}, 8)), "value 0 is 18446744073709551615", parseNPYInts},
		{"Fortran labels", formattest.NPY("|u1", true, "2, 2", formattest.Counting(4)), "Fortran", parseNPYInts},
		{"records", formattest.NPY("|V4', '", false, "1,", formattest.Counting(4)), "byte 10: values of type '|V4'", parseNPYBytes},
		{"pickles", formattest.NPY("|O", false, "1,", formattest.Counting(4)), "values of type '|O'", parseNPYBytes},
		{"no size", formattest.NPY("|u0", false, "1,", nil), "values of 0 bytes", parseNPYBytes},
		{"negative", formattest.NPY("|u1", false, "-1,", nil), "in a form that is not read", parseNPYBytes},
		{"dimensions", formattest.NPY("|u1", false, "1, 1, 1, 1, 1, 1, 1, 1, 1", []byte{1}), "9 dimensions", parseNPYBytes},
		{"more", append(bytes.Clone(good), 1), "more bytes follow", parseNPYBytes},
		{"lie", formattest.NPY("|u1", false, "1000000, 28, 28", formattest.Counting(10)), "the file ends early", parseNPYBytes},
		{"Fortran lie", formattest.NPY("|u1", true, "1000000, 28, 28", formattest.Counting(10)), "the file ends early", parseNPYBytes},
		{"lie of labels", formattest.NPY("<i8", false, "100000000,", formattest.Counting(10)), "the file ends early", parseNPYInts},
		{"big lie", formattest.NPY("|u1", false, "999999999999999999, 999999999999999999", nil), "more than 4294967296 bytes", parseNPYBytes},
	} {
		refuse(t, c.name, c.in, c.text, c.parse)
	}
}

func parseNPYBytes(b []byte) error {
	_, err := NPYBytes(bytes.NewReader(b), int64(len(b)))
	return err
}

func parseNPYInts(b []byte) error {
	_, _, err := NPYInts(bytes.NewReader(b), int64(len(b)))
	return err
}

func TestNPZ_ReadsArraysByName(t *testing.T) {
	x := formattest.NPY("|u1", false, "2, 2, 2", formattest.Counting(8))
	y := formattest.NPY("<i2", false, "2,", []byte{1, 0, 2, 0})
	for _, method := range []uint16{zip.Store, zip.Deflate} {
		in := formattest.NPZ(method, formattest.File("x.npy", x), formattest.File("y.npy", y), formattest.File("about.txt", []byte("hello")))
		z, err := OpenNPZ(bytes.NewReader(in), int64(len(in)))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(z.Names(), []string{"x", "y"}) || !z.Has("x", "y") || z.Has("x", "about") {
			t.Errorf("arrays %q", z.Names())
		}
		images, err := z.Bytes("x")
		if err != nil || !bytes.Equal(images.Data, formattest.Counting(8)) {
			t.Errorf("%v, %v", images, err)
		}
		labels, _, err := z.Ints("y")
		if err != nil || !slices.Equal(labels, []int64{1, 2}) {
			t.Errorf("%v, %v", labels, err)
		}
		if _, err := z.Bytes("z"); !errors.Is(err, ErrFormat) {
			t.Errorf("an array that is not there: %v", err)
		}
	}
}

func parseNPZ(b []byte) error {
	z, err := OpenNPZ(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	for _, name := range z.Names() {
		if _, err := z.Bytes(name); err != nil {
			return err
		}
	}
	return nil
}

func TestNPZ_IsStrict(t *testing.T) {
	x := formattest.NPY("|u1", false, "2, 2", formattest.Counting(4))
	good := formattest.NPZ(zip.Deflate, formattest.File("x.npy", x))
	for n := range good {
		if err := parseNPZ(good[:n]); !errors.Is(err, ErrFormat) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(good), err)
		}
	}
	damaged := formattest.NPZ(zip.Store, formattest.File("x.npy", x))
	damaged[bytes.Index(damaged, formattest.Counting(4))] ^= 1
	var many []formattest.Entry
	for i := range npzMaxArrays + 1 {
		many = append(many, formattest.File(fmt.Sprint(i, ".npy"), nil))
	}
	lie := formattest.NPZ(zip.Deflate, formattest.File("x.npy", formattest.NPY("|u1", false, "3000000000,", formattest.Counting(100))))
	for _, c := range []struct {
		name string
		in   []byte
		text string
	}{
		{"text", []byte("hello, world"), "zip directory: the file is damaged"},
		{"twice", formattest.NPZ(zip.Store, formattest.File("x.npy", x), formattest.File("x.npy", x)), "two arrays are called x"},
		{"checksum", damaged, "array x: values: the file is damaged"},
		{"lie", lie, "array x: values: the file ends early"},
		{"no array", formattest.NPZ(zip.Store, formattest.File("x.npy", []byte("hello, world"))), "array x: byte 0"},
	} {
		refuse(t, c.name, c.in, c.text, parseNPZ)
	}
	if err := parseNPZ(formattest.NPZ(zip.Store, many...)); !errors.Is(err, ErrFormat) {
		t.Errorf("many arrays: %v", err)
	}
	broken := errors.New("broken disk")
	if _, err := OpenNPZ(brokenAt{broken}, 1000); !errors.Is(err, broken) || errors.Is(err, ErrFormat) {
		t.Errorf("broken disk: %v", err)
	}
}

type brokenAt struct{ err error }

func (b brokenAt) ReadAt([]byte, int64) (int, error) { return 0, b.err }

func FuzzNPY(f *testing.F) {
	f.Add(formattest.NPY("|u1", true, "2, 2", formattest.Counting(4)))
	f.Add(formattest.NPY("<i4", false, "1,", formattest.Counting(4)))
	f.Add(formattest.NPY(">u8", false, "", make([]byte, 8)))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := NPYBytes(bytes.NewReader(in), int64(len(in)))
		onlyErrFormat(t, err)
		if err == nil && len(got.Data) > len(in) {
			t.Fatalf("%d bytes out of %d", len(got.Data), len(in))
		}
		values, _, err := NPYInts(bytes.NewReader(in), int64(len(in)))
		onlyErrFormat(t, err)
		if err == nil && len(values) > len(in) {
			t.Fatalf("%d values out of %d bytes", len(values), len(in))
		}
	})
}

func FuzzNPZ(f *testing.F) {
	x := formattest.NPY("|u1", false, "2, 2", formattest.Counting(4))
	f.Add(formattest.NPZ(zip.Store, formattest.File("x.npy", x)))
	f.Add(formattest.NPZ(zip.Deflate, formattest.File("x.npy", x), formattest.File("y.npy", formattest.NPY("<i8", false, "1,", formattest.Counting(8)))))
	f.Fuzz(func(t *testing.T, in []byte) {
		z, err := OpenNPZ(bytes.NewReader(in), int64(len(in)))
		onlyErrFormat(t, err)
		if err != nil {
			return
		}
		for i, name := range z.Names() {
			if i == 4 {
				break
			}
			_, err := z.Bytes(name)
			onlyErrFormat(t, err)
			_, _, err = z.Ints(name)
			onlyErrFormat(t, err)
		}
	})
}

func parseCIFAR(b []byte) error {
	_, _, err := CIFAR{10}.Append(bytes.NewReader(b), int64(len(b)), int64(len(b)), nil, nil)
	return err
}

func makeCIFAR(labels []byte, records int) (file, pixels []byte) {
	for i := range records {
		file = append(file, labels...)
		planes := formattest.Counting(cifarImage + i)[i:]
		file = append(file, planes...)
		for p := range cifarPlane {
			pixels = append(pixels, planes[p], planes[cifarPlane+p], planes[2*cifarPlane+p])
		}
	}
	return file, pixels
}

func TestCIFAR_Interleaves(t *testing.T) {
	for _, c := range []struct {
		kinds  CIFAR
		labels []byte
		want   uint16
	}{{CIFAR{10}, []byte{9}, 9}, {CIFAR{20, 100}, []byte{19, 99}, 99}} {
		file, want := makeCIFAR(c.labels, 3)
		before, labels := []byte{1, 2, 3}, []uint16{4}
		pixels, labels, err := c.kinds.Append(bytes.NewReader(file), int64(len(file)), int64(len(file)), before, labels)
		if err != nil || !bytes.Equal(pixels, append([]byte{1, 2, 3}, want...)) || !slices.Equal(labels, []uint16{4, c.want, c.want, c.want}) {
			t.Errorf("%v: %d bytes, labels %v, %v", c.kinds, len(pixels), labels, err)
		}
	}
}

func TestCIFAR_IsStrict(t *testing.T) {
	good, _ := makeCIFAR([]byte{3}, 2)
	wrong := bytes.Clone(good)
	wrong[1+cifarImage] = 10
	coarse, _ := makeCIFAR([]byte{20, 0}, 1)
	refuse(t, "label", wrong, "record 1: label 10, want below 10", parseCIFAR)
	refuse(t, "cut", good[:len(good)-1], "no whole number of CIFAR records", parseCIFAR)
	refuse(t, "lie", good, "record 2: the file ends early", func(b []byte) error {
		_, _, err := CIFAR{10}.Append(bytes.NewReader(b), 3073*1_000_000, int64(len(b)), nil, nil)
		return err
	})
	refuse(t, "big lie", good, "more than", func(b []byte) error {
		_, _, err := CIFAR{10}.Append(bytes.NewReader(b), 3073*(1<<40), int64(len(b)), nil, nil)
		return err
	})
	refuse(t, "more", good, "more bytes follow", func(b []byte) error {
		_, _, err := CIFAR{10}.Append(bytes.NewReader(b), 3073, int64(len(b)), nil, nil)
		return err
	})
	refuse(t, "coarse label", coarse, "record 0: label 20, want below 20", func(b []byte) error {
		_, _, err := CIFAR{20, 100}.Append(bytes.NewReader(b), int64(len(b)), int64(len(b)), nil, nil)
		return err
	})
}

func readTar(b []byte) (names []string, err error) {
	err = Tar(bytes.NewReader(b), func(name string, size int64, r io.Reader) error {
		names = append(names, name)
		n, err := io.Copy(io.Discard, r)
		if err != nil {
			return readError(err, "entry")
		}
		if n != size {
			return fmt.Errorf("%d bytes of %d", n, size)
		}
		return nil
	})
	return names, err
}

func TestTar_HandsOverEachFile(t *testing.T) {
	file := formattest.Tar(formattest.File("a/1", formattest.Counting(700)), formattest.File("a/2", nil))
	for name, in := range map[string][]byte{"plain": file, "gzip": formattest.Gzip(file)} {
		names, err := readTar(in)
		if err != nil || !slices.Equal(names, []string{"a/1", "a/2"}) {
			t.Errorf("%s: %q, %v", name, names, err)
		}
	}
	stop := errors.New("stop")
	err := Tar(bytes.NewReader(file), func(string, int64, io.Reader) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func TestTar_IsStrict(t *testing.T) {
	z := formattest.Gzip(formattest.Tar(formattest.File("a", formattest.Counting(700))))
	for n := range z {
		if _, err := readTar(z[:n]); n > 0 && !errors.Is(err, ErrFormat) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(z), err)
		}
	}
	parse := func(b []byte) error { _, err := readTar(b); return err }
	refuse(t, "text", bytes.Repeat([]byte("hello, world"), 100), "the file is damaged", parse)
	var many []formattest.Entry
	for range maxTarEntries + 1 {
		many = append(many, formattest.File("a", nil))
	}
	if _, err := readTar(formattest.Tar(many...)); !errors.Is(err, ErrFormat) {
		t.Errorf("many entries: %v", err)
	}
	var speed bytes.Buffer
	w, err := gzip.NewWriterLevel(&speed, gzip.NoCompression)
	must(err)
	_, err = w.Write(formattest.Tar(formattest.File("a", formattest.Counting(700))))
	must(err)
	must(w.Close())
	damaged := speed.Bytes()
	damaged[800] ^= 1
	refuse(t, "checksum", damaged, "the file is damaged", parse)
}

func FuzzCIFARArchive(f *testing.F) {
	file, _ := makeCIFAR([]byte{3}, 1)
	f.Add(formattest.Tar(formattest.File("a.bin", file)))
	f.Add(formattest.Gzip(formattest.Tar(formattest.File("a.bin", file))))
	f.Fuzz(func(t *testing.T, in []byte) {
		var pixels []byte
		var labels []uint16
		onlyErrFormat(t, Tar(bytes.NewReader(in), func(_ string, size int64, r io.Reader) (err error) {
			pixels, labels, err = CIFAR{10}.Append(r, size, int64(len(in)), pixels, labels)
			return err
		}))
		if len(pixels) != cifarImage*len(labels) {
			t.Fatalf("%d bytes of %d records", len(pixels), len(labels))
		}
	})
}
