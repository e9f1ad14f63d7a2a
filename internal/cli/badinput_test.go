// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"disdel/internal/data/format/formattest"
)

// picture writes an image of a size in one colour.
func picture(t *testing.T, kind string, w, h int, c color.Color) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		m.Set(i%w, i/w, c)
	}
	var out bytes.Buffer
	var err error
	if kind == "png" {
		err = png.Encode(&out, m)
	} else {
		err = jpeg.Encode(&out, m, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// flipped is a file with one bit changed, at a fraction of its length.
func flipped(file []byte, part float64) []byte {
	out := bytes.Clone(file)
	out[int(part*float64(len(out)-1))] ^= 4
	return out
}

// TestBadData: a data file that is damaged, cut off or lies about its size is
// refused with its name and the place, before anything is stored.
func TestBadData(t *testing.T) {
	t.Parallel()
	idx := func(dims []int, data []byte) []byte { return formattest.Gzip(formattest.IDX(dims, data)) }
	images, labels := idx([]int{40, 8, 8}, formattest.Counting(40*64)), idx([]int{40}, bytes.Repeat([]byte{0, 1, 2, 3}, 10))
	mnist := func(images, labels []byte) map[string][]byte {
		return map[string][]byte{
			"mnist/train-images-idx3-ubyte.gz": images, "mnist/train-labels-idx1-ubyte.gz": labels,
			"mnist/t10k-images-idx3-ubyte.gz": images, "mnist/t10k-labels-idx1-ubyte.gz": labels,
		}
	}
	batch := func(records int) []byte {
		out := formattest.Counting(3073 * records)
		for i := range records {
			out[3073*i] = byte(i % 10)
		}
		return out
	}
	cifar := func(last []byte) []byte {
		var entries []formattest.Entry
		for _, name := range []string{"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"} {
			entries = append(entries, formattest.File("cifar-10-batches-bin/"+name+".bin", batch(20)))
		}
		return formattest.Gzip(formattest.Tar(append(entries, formattest.File("cifar-10-batches-bin/test_batch.bin", last))...))
	}
	little := binary.LittleEndian
	cell := formattest.MATArray(little, 9, []int{20, 16}, "", formattest.MATElement(little, 2, make([]byte, 320)))
	mat := formattest.MAT(little, formattest.MATArray(little, 1, []int{36, 39}, "dat", slices.Repeat([][]byte{cell}, 36*39)...))
	liar := formattest.MAT(little, formattest.MATArray(little, 1, []int{36, 1 << 30}, "dat", cell))
	bigCell := formattest.MATArray(little, 9, []int{1 << 15, 1 << 15}, "", formattest.MATElement(little, 2, make([]byte, 16)))
	wide := formattest.MAT(little, formattest.MATArray(little, 1, []int{36, 39}, "dat", slices.Repeat([][]byte{bigCell}, 36*39)...))
	npy := func(shape string, data []byte) []byte { return formattest.NPY("|u1", false, shape, data) }
	npz := func(x, y []byte) []byte {
		return formattest.NPZ(8, formattest.File("x.npy", x), formattest.File("y.npy", y))
	}
	good := npz(npy("40, 4, 4", formattest.Counting(640)), npy("40,", bytes.Repeat([]byte{0, 1}, 20)))
	dark, light := picture(t, "png", 8, 8, color.Black), picture(t, "png", 8, 8, color.White)
	leaves := func(change map[string][]byte) map[string][]byte {
		files := map[string][]byte{}
		for i := range 6 {
			files[fmt.Sprintf("leaves/elm/%d.png", i)], files[fmt.Sprintf("leaves/oak/%d.png", i)] = dark, light
		}
		for name, file := range change {
			files[name] = file
		}
		return files
	}
	jpegFile := picture(t, "jpeg", 8, 8, color.White)
	for name, c := range map[string]struct {
		set   string
		files map[string][]byte
		says  []string
	}{
		"idx cut off":     {"mnist", mnist(images[:len(images)/2], labels), []string{"train-images-idx3-ubyte.gz", "the file ends early"}},
		"idx bit flipped": {"mnist", mnist(flipped(images, 1), labels), []string{"train-images-idx3-ubyte.gz", "the file"}},
		"idx lies":        {"mnist", mnist(idx([]int{1 << 30, 1 << 30, 1 << 30}, nil), labels), []string{"train-images-idx3-ubyte.gz", "1073741824"}},
		"idx large":       {"mnist", mnist(idx([]int{1 << 20, 28, 28}, nil), labels), []string{"train-images-idx3-ubyte.gz", "the file ends early"}},
		"idx labels":      {"mnist", mnist(images, idx([]int{39}, make([]byte, 39))), []string{"39 labels", "40"}},
		"idx no gzip":     {"mnist", mnist([]byte("\x1f\x8b\x00"), labels), []string{"train-images-idx3-ubyte.gz"}},

		"cifar cut off":     {"cifar10", map[string][]byte{"cifar10/cifar-10-binary.tar.gz": cifar(batch(20))[:3000]}, []string{"cifar-10-binary.tar.gz", "the file ends early"}},
		"cifar bit flipped": {"cifar10", map[string][]byte{"cifar10/cifar-10-binary.tar.gz": flipped(cifar(batch(20)), 1)}, []string{"cifar-10-binary.tar.gz", "the file"}},
		"cifar part":        {"cifar10", map[string][]byte{"cifar10/cifar-10-binary.tar.gz": cifar(batch(20)[:5000])}, []string{"test_batch.bin", "3073"}},
		"cifar label":       {"cifar10", map[string][]byte{"cifar10/cifar-10-binary.tar.gz": cifar(bytes.Repeat([]byte{200}, 3073))}, []string{"test_batch.bin", "200"}},

		"mat cut off":     {"binary_alpha_digits", map[string][]byte{"binary_alpha_digits/binaryalphadigs.mat": mat[:len(mat)-9]}, []string{"binaryalphadigs.mat"}},
		"mat bit flipped": {"binary_alpha_digits", map[string][]byte{"binary_alpha_digits/binaryalphadigs.mat": flipped(mat, 0.5)}, []string{"binaryalphadigs.mat"}},
		"mat lies":        {"binary_alpha_digits", map[string][]byte{"binary_alpha_digits/binaryalphadigs.mat": liar}, []string{"binaryalphadigs.mat", "byte "}},
		"mat cells lie":   {"binary_alpha_digits", map[string][]byte{"binary_alpha_digits/binaryalphadigs.mat": wide}, []string{"binaryalphadigs.mat", "byte "}},
		"mat is text":     {"binary_alpha_digits", map[string][]byte{"binary_alpha_digits/binaryalphadigs.mat": []byte("hello")}, []string{"binaryalphadigs.mat"}},

		"npz cut off":     {"./a.npz", map[string][]byte{"a.npz": good[:len(good)-30]}, []string{"a.npz", "the file is damaged"}},
		"npz bit flipped": {"./a.npz", map[string][]byte{"a.npz": flipped(good, 0.2)}, []string{"a.npz"}},
		"npz lies":        {"./a.npz", map[string][]byte{"a.npz": npz(npy("9999999999999, 4, 4", nil), npy("1,", []byte{1}))}, []string{"a.npz", "array x", "are more than"}},
		"npz ends early":  {"./a.npz", map[string][]byte{"a.npz": npz(npy("4000, 100, 100", make([]byte, 10)), npy("1,", []byte{1}))}, []string{"a.npz", "array x", "the file ends early"}},
		"npz floats":      {"./a.npz", map[string][]byte{"a.npz": npz(formattest.NPY("<f4", false, "2, 1, 1", make([]byte, 8)), npy("2,", []byte{0, 1}))}, []string{"float32, want uint8", "round().astype('uint8')"}},

		"csv pixel":   {"./a.csv", map[string][]byte{"a.csv": []byte("a,1,2,3,4\nb,1,2,3,x\n")}, []string{"a.csv", "line 2", `field 5 is "x"`, "0 to 255"}},
		"csv short":   {"./a.csv", map[string][]byte{"a.csv": []byte("a,1,2,3,4\nb,1,2\n")}, []string{"a.csv", "line 2: 3 fields, want 5"}},
		"csv shape":   {"./a.csv", map[string][]byte{"a.csv": []byte("a,1,2,3\n")}, []string{"a.csv", "line 1: 3 pixels are no square", "--shape"}},
		"csv nothing": {"./a.csv", map[string][]byte{"a.csv": nil}, []string{"a.csv", "there are no records"}},
		"csv.gz cut":  {"./a.csv.gz", map[string][]byte{"a.csv.gz": formattest.Gzip(bytes.Repeat([]byte("a,1,2,3,4\n"), 100))[:30]}, []string{"a.csv.gz", "the file ends early"}},
		"one class":   {"./a.csv", map[string][]byte{"a.csv": []byte("a,1,2,3,4\na,5,6,7,8\n")}, []string{`all records are of one class, "a"`}},

		"png cut off":     {"./leaves", leaves(map[string][]byte{"leaves/oak/3.png": light[:len(light)/2]}), []string{"oak/3.png"}},
		"png bit flipped": {"./leaves", leaves(map[string][]byte{"leaves/oak/3.png": flipped(light, 0.5)}), []string{"oak/3.png"}},
		"png bomb":        {"./leaves", leaves(map[string][]byte{"leaves/oak/3.png": bytes.Replace(light, []byte("\x00\x00\x00\x08\x00\x00\x00\x08"), []byte("\x00\x0f\xff\xff\x00\x0f\xff\xff"), 1)}), []string{"oak/3.png"}},
		"jpeg cut off":    {"./leaves", leaves(map[string][]byte{"leaves/oak/3.jpg": jpegFile[:len(jpegFile)/2]}), []string{"oak/3.jpg"}},
		"mixed sizes":     {"./leaves", leaves(map[string][]byte{"leaves/oak/3.png": picture(t, "png", 9, 8, color.White)}), []string{"oak/3.png", "9 x 8 pixels", "elm/0.png has 8 x 8", "mogrify -resize '8x8!'"}},
		"mixed colours":   {"./leaves", leaves(map[string][]byte{"leaves/oak/3.png": png8(t, make([]byte, 64))}), []string{"oak/3.png", "grey", "in colour", "mogrify -colorspace Gray"}},
		"no images":       {"./leaves", map[string][]byte{"leaves/elm/note.txt": nil, "leaves/oak/note.txt": nil}, []string{"there are no records to train on"}},
		"no classes":      {"./leaves", map[string][]byte{"leaves/note.txt": nil}, []string{"leaves has no folders in it; want one for each class"}},
		"deeper folder":   {"./leaves", leaves(map[string][]byte{"leaves/oak/more/1.png": light}), []string{"oak/more is a folder within a class"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			for path, file := range c.files {
				d.write(filepath.Join("data", path), file)
			}
			before, err := os.ReadDir(d.folder)
			if err != nil {
				t.Fatal(err)
			}
			set := c.set
			if path, own := strings.CutPrefix(set, "./"); own {
				set = filepath.Join(d.folder, "data", path)
			}
			got := d.run("train", set, "--data-dir", filepath.Join(d.folder, "data"), "--offline", "--epochs", "1").want(t, ExitFailed, c.says...)
			if got.stdout != "" || strings.Contains(got.stderr, "panic") || strings.Contains(got.stderr, "goroutine") {
				t.Errorf("stdout %q, stderr %q", got.stdout, got.stderr)
			}
			if after, err := os.ReadDir(d.folder); err != nil || len(after) != len(before) {
				t.Errorf("made %v, %v", after, err)
			}
		})
	}
}

// TestOneImageInAClass: it is trained on and not tested, and the user is told.
func TestOneImageInAClass(t *testing.T) {
	d := newDesk(t)
	for i := range 10 {
		d.write(fmt.Sprintf("leaves/elm/%d.png", i), picture(t, "png", 8, 8, color.Gray{uint8(20 * i)}))
		d.write(fmt.Sprintf("leaves/oak/%d.jpg", i), picture(t, "jpeg", 8, 8, color.White))
	}
	d.write("leaves/yew/only.png", picture(t, "png", 8, 8, color.Black))
	got := d.run("train", filepath.Join(d.folder, "leaves"), "--model", "mlp", "--epochs", "1").want(t, ExitOK, `one record only in class "yew"; it is trained on and not tested`)
	if !strings.Contains(got.stdout, "4 test records") {
		t.Errorf("the report:\n%s", got.stdout)
	}
}

// TestSmallMemory: half a megabyte is less than any action has.
func TestSmallMemory(t *testing.T) {
	d := newDesk(t)
	d.run("train", "digits", "--memory", "0.5").want(t, ExitFailed, "512 KB of memory is less than the platform's smallest action of 128 MB", "change --memory")
	d.run("train", "digits", "--memory", "0.0000001").want(t, ExitUsage, "--memory", "more than 0")
}
