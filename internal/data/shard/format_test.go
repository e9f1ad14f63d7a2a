// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"go/build"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// sample makes a valid shard with contents that differ from record to record.
func sample(h Header) (pixels []byte, labels []uint16) {
	r := NewRand(99)
	pixels, labels = make([]byte, h.Records*h.RecordBytes()), make([]uint16, h.Records)
	for i := range pixels {
		pixels[i] = byte(r.Uint64())
	}
	for i := range labels {
		labels[i] = uint16(r.Below(uint64(h.Classes)))
	}
	return pixels, labels
}

func encode(t interface {
	Helper()
	Fatal(...any)
}, h Header, pixels []byte, labels []uint16,
) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, h, pixels, labels); err != nil {
		t.Fatal(err)
	}
	if int64(b.Len()) != h.Bytes() {
		t.Fatal("encoded", b.Len(), "bytes, header says", h.Bytes())
	}
	return b.Bytes()
}

func TestFormat_Layout(t *testing.T) {
	b := encode(t, Header{Records: 2, H: 1, W: 2, C: 3, Classes: 300}, []byte("abcdefghijkl"), []uint16{258, 7})
	const want = "44445348" + "0100" + "0000" +
		"02000000" + "01000000" + "02000000" + "03000000" + "2c010000" + "00000000" +
		"0201" + "0700" + "6162636465666768696a6b6c"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("encoded\n%s, want\n%s", got, want)
	}
}

func drawHeader(t *rapid.T) Header {
	return Header{
		Records: rapid.IntRange(0, 60).Draw(t, "records"),
		H:       rapid.IntRange(1, 9).Draw(t, "h"),
		W:       rapid.IntRange(1, 9).Draw(t, "w"),
		C:       rapid.IntRange(1, 4).Draw(t, "c"),
		Classes: rapid.SampledFrom([]int{1, 2, 10, 1000, MaxClasses}).Draw(t, "classes"),
	}
}

func TestReadRange_GivesWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHeader(t)
		pixels, labels := sample(h)
		encoded := encode(t, h, pixels, labels)
		from := rapid.IntRange(0, h.Records).Draw(t, "from")
		to := rapid.IntRange(from, h.Records).Draw(t, "to")
		dst := NewWindow(to-from, h.RecordBytes())
		size := h.RecordBytes()
		wantPixels, wantLabels := pixels[from*size:to*size], labels[from:to]
		if rapid.Bool().Draw(t, "some") {
			dst.Pick, wantPixels, wantLabels = []uint32{}, nil, nil
			for i := range to - from {
				if rapid.Bool().Draw(t, "pick") {
					dst.Pick = append(dst.Pick, uint32(i))
					wantPixels = append(wantPixels, pixels[(from+i)*size:(from+i+1)*size]...)
					wantLabels = append(wantLabels, labels[from+i])
				}
			}
			dst.Pixels, dst.Labels = make([]byte, 0, len(wantPixels)), make([]uint16, 0, len(wantLabels))
		}

		under := bytes.NewReader(encoded)
		var r io.Reader = under
		if rapid.Bool().Draw(t, "halves") {
			r = iotest.HalfReader(r)
		}
		rd, err := NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		if rd.Header != h {
			t.Fatalf("header %+v, want %+v", rd.Header, h)
		}
		if err := rd.ReadRange(from, to, dst); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(dst.Pixels, wantPixels) || !slices.Equal(dst.Labels, wantLabels) {
			t.Fatalf("records [%d, %d) differ", from, to)
		}
		if got, want := under.Len(), (h.Records-to)*size; got != want {
			t.Fatalf("%d bytes left unread, want %d: it must stop at the end of the range", got, want)
		}
	})
}

// A large shard crosses the reader's own buffer in labels and in pixels.
func TestReadRange_LargerThanItsBuffer(t *testing.T) {
	h := Header{Records: 5000, H: 3, W: 5, C: 1, Classes: 10}
	pixels, labels := sample(h)
	encoded := encode(t, h, pixels, labels)
	rd, err := NewReader(bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	dst := NewWindow(100, h.RecordBytes())
	if err := rd.ReadRange(4100, 4200, dst); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dst.Pixels, pixels[4100*15:4200*15]) || !slices.Equal(dst.Labels, labels[4100:4200]) {
		t.Error("records differ")
	}
}

func TestHeader_Limits(t *testing.T) {
	ok := Header{Records: 3, H: 2, W: 2, C: 1, Classes: 10}
	for _, c := range []struct {
		name string
		h    Header
		want string
	}{
		{"negative records", Header{-1, 2, 2, 1, 10}, "records"},
		{"too many records", Header{MaxRecords + 1, 1, 1, 1, 10}, "records"},
		{"no height", Header{3, 0, 2, 1, 10}, "height"},
		{"negative width", Header{3, 2, -2, 1, 10}, "width"},
		{"no channels", Header{3, 2, 2, 0, 10}, "channels"},
		{"huge channels", Header{3, 2, 2, math.MaxInt, 10}, "channels"},
		{"no classes", Header{3, 2, 2, 1, 0}, "classes"},
		{"too many classes", Header{3, 2, 2, 1, MaxClasses + 1}, "classes"},
		{"huge image", Header{0, 1 << 13, 1 << 13, 2, 10}, "larger"},
		{"product beyond 64 bits", Header{3, 1 << 26, 1 << 26, 1 << 26, 10}, "larger"},
		{"huge shard", Header{1 << 20, 8, 8, 1, 10}, "take"},
		{"one byte too many", Header{1, MaxBytes - headerBytes - 1, 1, 1, 10}, "take"},
	} {
		err := c.h.Validate()
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ErrFormat that mentions %q", c.name, err, c.want)
		}
		if err := Write(io.Discard, c.h, nil, nil); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: Write gives %v", c.name, err)
		}
	}
	for _, h := range []Header{ok, {Classes: 1, H: 1, W: 1, C: 1}, {1, MaxBytes - headerBytes - 2, 1, 1, MaxClasses}} {
		if err := h.Validate(); err != nil {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

func TestReader_RefusesDamage(t *testing.T) {
	h := Header{Records: 3, H: 2, W: 2, C: 1, Classes: 10}
	pixels, labels := sample(h)
	good := encode(t, h, pixels, labels)
	read := func(b []byte) error {
		rd, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return err
		}
		dst := NewWindow(h.Records, h.RecordBytes())
		dst.Labels = append(dst.Labels, 1)
		err = rd.ReadRange(0, rd.Header.Records, dst)
		if err != nil && len(dst.Labels)+len(dst.Pixels) > 0 {
			t.Errorf("records in the window after %v", err)
		}
		return err
	}
	if err := read(good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if err := read(good[:n]); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "ends inside") {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	put := func(at int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"magic", put(0, 0x12345678), "starts with"},
		{"version", put(4, 2), "version 2"},
		{"reserved", put(4, 1|1<<16), "reserved"},
		{"reserved at the end", put(28, 1), "reserved"},
		{"records", put(8, math.MaxUint32), "records"},
		{"classes", put(24, math.MaxUint32), "classes"},
		{"label", put(32, 10), "record 0 has label 10"},
		{"trailing byte", append(bytes.Clone(good), 0), "follow"},
	} {
		if err := read(c.b); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ErrFormat that mentions %q", c.name, err, c.want)
		}
	}
}

// Labels outside the range are checked as well: a shard is good or it is not.
func TestReadRange_ChecksAllLabels(t *testing.T) {
	h := Header{Records: 3, H: 1, W: 1, C: 1, Classes: 2}
	b := encode(t, h, []byte{1, 2, 3}, []uint16{0, 1, 1})
	b[headerBytes+4] = 2
	rd, err := NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := rd.ReadRange(0, 1, NewWindow(1, 1)); !errors.Is(err, ErrFormat) {
		t.Errorf("got %v", err)
	}
}

func TestReadRange_RefusesWrongCalls(t *testing.T) {
	h := Header{Records: 3, H: 1, W: 2, C: 1, Classes: 2}
	b := encode(t, h, make([]byte, 6), make([]uint16, 3))
	for _, c := range []struct {
		name     string
		from, to int
		dst      *Window
	}{
		{"negative", -1, 2, NewWindow(3, 2)},
		{"backwards", 2, 1, NewWindow(3, 2)},
		{"beyond", 0, 4, NewWindow(4, 2)},
		{"few labels", 0, 3, &Window{Pixels: make([]byte, 6), Labels: make([]uint16, 2)}},
		{"few pixels", 0, 3, &Window{Pixels: make([]byte, 5), Labels: make([]uint16, 3)}},
	} {
		rd, err := NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		// These are mistakes of the caller, not of the bytes.
		if err := rd.ReadRange(c.from, c.to, c.dst); err == nil || errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(c.dst.Labels)+len(c.dst.Pixels) != 0 {
			t.Errorf("%s: the window is not empty", c.name)
		}
	}
	rd, err := NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		if err := rd.ReadRange(0, 1, NewWindow(1, 2)); (err == nil) != want {
			t.Errorf("range %d of one reader: %v", i+1, err)
		}
	}
}

func TestReader_KeepsTheReadersError(t *testing.T) {
	h := Header{Records: 3, H: 2, W: 2, C: 1, Classes: 10}
	pixels, labels := sample(h)
	good := encode(t, h, pixels, labels)
	for n := 0; n <= len(good); n++ {
		lost := errors.New("connection lost")
		r := io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(lost))
		rd, err := NewReader(r)
		if err == nil {
			err = rd.ReadRange(1, 3, NewWindow(2, 4))
		}
		if !errors.Is(err, lost) || errors.Is(err, ErrFormat) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	lost := errors.New("disk full")
	for n := range 3 {
		if err := Write(&failingWriter{after: n, err: lost}, h, pixels, labels); !errors.Is(err, lost) {
			t.Errorf("write %d: %v", n, err)
		}
	}
}

type failingWriter struct {
	after int
	err   error
}

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.after--; w.after < 0 {
		return 0, w.err
	}
	return len(b), nil
}

func TestWrite_RefusesWrongArguments(t *testing.T) {
	h := Header{Records: 2, H: 1, W: 2, C: 1, Classes: 3}
	for _, c := range []struct {
		pixels, labels int
		label          uint16
	}{{3, 2, 0}, {5, 2, 0}, {4, 1, 0}, {4, 3, 0}, {4, 2, 3}} {
		labels := slices.Repeat([]uint16{c.label}, c.labels)
		var b bytes.Buffer
		if err := Write(&b, h, make([]byte, c.pixels), labels); !errors.Is(err, ErrFormat) {
			t.Errorf("%+v: %v", c, err)
		}
		if b.Len() > 0 {
			t.Errorf("%+v: %d bytes were written before the error", c, b.Len())
		}
	}
}

func TestReadHeader(t *testing.T) {
	h := Header{Records: 2, H: 1, W: 2, C: 1, Classes: 3}
	b := bytes.NewReader(encode(t, h, make([]byte, 4), make([]uint16, 2)))
	got, err := ReadHeader(b)
	if err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
	if b.Len() != 8 {
		t.Errorf("%d bytes left, want labels and pixels", b.Len())
	}
}

// The worker links this package, so it stays small.
func TestImports_StandardLibraryOnly(t *testing.T) {
	p, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range p.Imports {
		if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") || first == "disdel" {
			t.Errorf("imports %s", path)
		}
	}
}

// FuzzReader: no input makes the reader panic or take much memory, and what it
// accepts it would write the same way.
func FuzzReader(f *testing.F) {
	h := Header{Records: 3, H: 2, W: 2, C: 1, Classes: 10}
	var b bytes.Buffer
	pixels, labels := sample(h)
	if err := Write(&b, h, pixels, labels); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes(), 0, 3)
	f.Add(b.Bytes(), 1, 2)
	f.Add(b.Bytes()[:40], 0, 0)
	f.Fuzz(func(t *testing.T, in []byte, from, to int) {
		rd, err := NewReader(bytes.NewReader(in))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%v is not ErrFormat", err)
			}
			return
		}
		h := rd.Header
		if int64(len(in)) != h.Bytes() {
			// Claims more or less than there is: never all records.
			n := min(h.Records, len(in))
			dst := NewWindow(n, min(h.RecordBytes(), len(in)))
			if rd.ReadRange(0, h.Records, dst) == nil {
				t.Fatalf("%d bytes read as the %d of %+v", len(in), h.Bytes(), h)
			}
			return
		}
		all := NewWindow(h.Records, h.RecordBytes())
		if err := rd.ReadRange(0, h.Records, all); err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%v is not ErrFormat", err)
			}
			return
		}
		if again := encode(t, h, all.Pixels, all.Labels); !bytes.Equal(again, in) {
			t.Fatal("encoded again, it differs")
		}
		if from < 0 || to < from || to > h.Records {
			return
		}
		part := NewWindow(to-from, h.RecordBytes())
		rd, err = NewReader(bytes.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		if err := rd.ReadRange(from, to, part); err != nil {
			t.Fatal(err)
		}
		size := h.RecordBytes()
		if !bytes.Equal(part.Pixels, all.Pixels[from*size:to*size]) || !slices.Equal(part.Labels, all.Labels[from:to]) {
			t.Fatal("a range differs from the whole")
		}
	})
}
