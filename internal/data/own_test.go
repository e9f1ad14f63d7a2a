// SPDX-License-Identifier: Apache-2.0

package data

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"disdel/internal/data/format"
	"disdel/internal/data/format/formattest"
)

func TestOwnName(t *testing.T) {
	for path, want := range map[string]string{
		"/a/leaves": "leaves", "/a/My Leaves!.NPZ": "my-leaves", "/a/x.csv.gz": "x", "/a/ünï.csv": "n", "/a/v1.2": "v1-2",
		"/a/mnist.npz": "own-mnist", "/a/digits": "own-digits", "/a/日本": "own", "/": "own", "/a/--a--": "a", "/a/b_c": "b_c",
		"/a/" + strings.Repeat("x", 100): strings.Repeat("x", maxOwnName),
	} {
		if got := ownName(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got := ownName("."); got != ownName(here) {
		t.Errorf("this folder is called %q", got)
	}
}

func TestFind_PathsAndNames(t *testing.T) {
	t.Chdir(t.TempDir())
	files{"mnist/x": nil, "leaves/x": nil, "a.csv": []byte("label,a\n")}.write(t, ".")
	for ref, want := range map[string]string{"mnist": "mnist", "./mnist": "own-mnist", "leaves": "leaves", "./leaves/": "leaves", "a.csv": "a"} {
		d, err := Find(ref)
		if err != nil || d.Info().Name != want {
			t.Errorf("%s: %v, %v", ref, d, err)
			continue
		}
		if _, isOwn := d.(own); isOwn && d.Place(Options{}) != (Place{Path: ref}) {
			t.Errorf("%s is at %+v", ref, d.Place(Options{}))
		}
	}
	for ref, text := range map[string]string{
		"nist": `"nist"; there is: digits, mnist,`, "": "there is", "./nist": "no such file", "b.csv": "no such file",
	} {
		if _, err := Find(ref); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

// openOwn writes files and opens one path of them.
func openOwn(t *testing.T, f files, ref string, o Options) (*Set, notices, error) {
	t.Helper()
	folder := t.TempDir()
	f.write(t, folder)
	var told notices
	o.Notice = told.add
	set, err := Open(t.Context(), filepath.Join(folder, ref), o)
	return set, told, err
}

func npyImages(n int) []byte {
	return formattest.NPY("|u1", false, fmt.Sprintf("%d, 2, 3", n), formattest.Counting(256)[256-6*n:])
}

func TestOwn_NPZ(t *testing.T) {
	labels := func(values ...int64) []byte {
		var b []byte
		for _, v := range values {
			b = binary.LittleEndian.AppendUint64(b, uint64(v))
		}
		return formattest.NPY("<i8", false, fmt.Sprintf("%d, 1", len(values)), b)
	}
	x, y := formattest.File("x_train.npy", npyImages(6)), formattest.File("y_train.npy", labels(7, -2, 7, 100, -2, 7))
	xt, yt := formattest.File("x_test.npy", npyImages(2)), formattest.File("y_test.npy", labels(100, 7))
	set, told, err := openOwn(t, files{"Set A.npz": formattest.NPZ(zip.Deflate, x, y, xt, yt, formattest.File("more.npy", npyImages(1)))}, "Set A.npz", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if i := set.Info; i.Name != "set-a" || i.H != 2 || i.W != 3 || i.C != 1 || !slices.Equal(i.ClassNames, []string{"-2", "7", "100"}) || i.Scale != 1.0/255 {
		t.Errorf("info %+v", i)
	}
	if !slices.Equal(set.Train.Labels, []uint16{1, 0, 1, 2, 0, 1}) || !slices.Equal(set.Test.Labels, []uint16{2, 1}) {
		t.Errorf("labels %v and %v", set.Train.Labels, set.Test.Labels)
	}
	told.want(t)

	for _, names := range [][]string{{"x.npy", "y.npy"}, {"x_train.npy", "y_train.npy"}} {
		all := formattest.NPZ(zip.Store, formattest.File(names[0], npyImages(8)), formattest.File(names[1], labels(0, 0, 0, 0, 0, 1, 1, 1)))
		set, told, err = openOwn(t, files{"a.npz": all}, "a.npz", Options{})
		if err != nil || set.Train.Len() != 6 || set.Test.Len() != 2 {
			t.Errorf("%q: %+v, %v", names, set, err)
		}
		told.want(t, "a has no test part: 2 of its 8 records, about 20 % of each class, become one")
	}

	for name, c := range map[string]struct {
		entries []formattest.Entry
		text    string
	}{
		"other names": {[]formattest.Entry{formattest.File("arr_0.npy", npyImages(1))}, `arrays ["arr_0"]; want x_train, y_train, x_test and y_test, or x and y`},
		"counts":      {[]formattest.Entry{x, formattest.File("y_train.npy", labels(1, 2))}, "array y_train has dimensions [2], want one label for each of the 6 images in x_train"},
		"flat":        {[]formattest.Entry{formattest.File("x.npy", formattest.NPY("|u1", false, "2, 4", make([]byte, 8))), formattest.File("y.npy", labels(1, 2))}, "array x: "},
		"shapes":      {[]formattest.Entry{x, y, formattest.File("x_test.npy", formattest.NPY("|u1", false, "2, 3, 2", make([]byte, 12))), yt}, "images of 2x3x1 in x_train and of 3x2x1 in x_test"},
		"floats":      {[]formattest.Entry{formattest.File("x.npy", formattest.NPY("<f4", false, "1, 2, 2", make([]byte, 16))), formattest.File("y.npy", labels(1))}, "array x: values are float32, want uint8"},
		"one class":   {[]formattest.Entry{formattest.File("x.npy", npyImages(2)), formattest.File("y.npy", labels(4, 4))}, `all records are of one class, "4"`},
		"no records":  {[]formattest.Entry{formattest.File("x.npy", npyImages(0)), formattest.File("y.npy", labels())}, "there are no records to train on"},
		"no images":   {[]formattest.Entry{formattest.File("x.npy", formattest.NPY("|u1", false, "2, 0, 2", nil)), formattest.File("y.npy", labels(0, 1))}, "images of 0x2x1"},
	} {
		_, _, err := openOwn(t, files{"a.npz": formattest.NPZ(zip.Store, c.entries...)}, "a.npz", Options{})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "a.npz: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOwn_CSV(t *testing.T) {
	text := "label,a,b,c,d\n"
	for i := range 10 {
		text += fmt.Sprintf("%s,%d,2,3,255\n", []string{"dog", "cat"}[i%2], i)
	}
	set, told, err := openOwn(t, files{"pets.csv": []byte(text)}, "pets.csv", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if i := set.Info; !slices.Equal(i.ClassNames, []string{"cat", "dog"}) || i.H != 2 || i.W != 2 || i.Train != 8 || i.Test != 2 {
		t.Errorf("info %+v", i)
	}
	for _, s := range []Split{set.Train, set.Test} {
		for i, label := range s.Labels {
			if int(s.Pixels[4*i])%2 == int(label) {
				t.Errorf("record %d has label %d", s.Pixels[4*i], label)
			}
		}
	}
	told.want(t, "pets has no test part: 2 of its 10 records")

	// Numbers are classes in numerical order, and gaps do not count.
	numbers := "10,0,0\n9,0,1\n10,1,0\n9,1,1\n-1,1,1\n9,0,0\n"
	set, told, err = openOwn(t, files{"n.csv.gz": formattest.Gzip([]byte(numbers))}, "n.csv.gz", Options{Shape: &format.Shape{H: 1, W: 1, C: 2}})
	if err != nil || !slices.Equal(set.Info.ClassNames, []string{"-1", "9", "10"}) || set.Info.C != 2 || set.Test.Len() != 1 {
		t.Fatalf("%+v, %v", set, err)
	}
	told.want(t, "n.csv.gz: no column is called label, so the first one is taken for it", `n: one record only in class "-1"; it is trained on and not tested`,
		"n: no pixel is above 1; they are taken as 0 to 255", "n has no test part: 1 of its 6 records")

	_, _, err = openOwn(t, files{"n.csv": []byte(numbers)}, "n.csv", Options{})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "n.csv: line 1: 2 pixels are no square") {
		t.Errorf("got %v", err)
	}
	_, _, err = openOwn(t, files{"one.csv": []byte("a,1\nb,2\n")}, "one.csv", Options{})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "2 records of 2 classes leave none to test on") {
		t.Errorf("got %v", err)
	}
}

func TestOwn_IDXFolder(t *testing.T) {
	set, told, err := openOwn(t, smallIDX(true).below("kana"), "kana", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(set.Train.Pixels, smallTrain) || !slices.Equal(set.Info.ClassNames, []string{"0", "1", "2", "5", "6", "7", "9"}) ||
		!slices.Equal(set.Train.Labels, []uint16{0, 1, 2, 0, 1, 6}) {
		t.Errorf("%+v", set)
	}
	told.want(t, `kana: nothing to train on in class "5", "6", "7"`, "kana: no pixel is above 23")
}

func TestOwn_OtherThings(t *testing.T) {
	for ref, text := range map[string]string{
		"a.txt": "want a file called .npz, .csv or .csv.gz", "a.mat": "want a file called", "empty.npz": "zip directory: ", "empty.csv": "there are no records",
	} {
		_, _, err := openOwn(t, files{ref: nil}, ref, Options{})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), ref) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	_, _, err := openOwn(t, files{"a.csv/x": nil}, "a.csv", Options{})
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("a folder called .csv: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, t.TempDir(), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a dead context: %v", err)
	}
}

func TestFew(t *testing.T) {
	if got := few([]string{"a", "b", "c", "d", "e", "f", "g"}); got != "a, b, c, d, e and 2 more" {
		t.Error(got)
	}
}

// A context that ends while a file is read stops the reading.
func TestOpen_StopsWithinAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := withFile(ctx, path, func(f source) error {
		var b [1]byte
		_, first := f.Read(b[:])
		_, firstAt := f.ReadAt(b[:], 50)
		cancel()
		_, err := f.Read(b[:])
		_, errAt := f.ReadAt(b[:], 50)
		if first != nil || firstAt != nil || !errors.Is(errAt, context.Canceled) {
			t.Errorf("before: %v, %v; after: %v", first, firstAt, errAt)
		}
		return err
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}
