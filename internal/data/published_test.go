// SPDX-License-Identifier: Apache-2.0

package data

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"disdel/internal/data/fetch"
	"disdel/internal/data/format/formattest"
)

// files are the contents of a folder, by path.
type files map[string][]byte

// write puts them below a folder.
func (f files) write(t *testing.T, folder string) {
	t.Helper()
	for name, data := range f {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// below puts all files below a folder of that name.
func (f files) below(folder string) files {
	out := files{}
	for name, data := range f {
		out[folder+"/"+name] = data
	}
	return out
}

// A small MNIST: six images of 2x2 to train, three to test.
var (
	smallTrain  = formattest.Counting(6 * 4)
	smallTest   = formattest.Counting(9 * 4)[6*4:]
	smallLabels = []byte{0, 1, 2, 0, 1, 9, 5, 6, 7}
)

func smallIDX(gz bool) files {
	f := files{
		"train-images-idx3-ubyte": formattest.IDX([]int{6, 2, 2}, smallTrain),
		"train-labels-idx1-ubyte": formattest.IDX([]int{6}, smallLabels[:6]),
		"t10k-images-idx3-ubyte":  formattest.IDX([]int{3, 2, 2}, smallTest),
		"t10k-labels-idx1-ubyte":  formattest.IDX([]int{3}, smallLabels[6:]),
	}
	if !gz {
		return f
	}
	packed := files{}
	for name, data := range f {
		packed[name+".gz"] = formattest.Gzip(data)
	}
	return packed
}

func smallNPZ() []byte {
	return formattest.NPZ(zip.Deflate,
		formattest.File("x_train.npy", formattest.NPY("|u1", false, "6, 2, 2", smallTrain)),
		formattest.File("y_train.npy", formattest.NPY("|u1", false, "6,", smallLabels[:6])),
		formattest.File("x_test.npy", formattest.NPY("|u1", false, "3, 2, 2", smallTest)),
		formattest.File("y_test.npy", formattest.NPY("|u1", false, "3,", smallLabels[6:])))
}

func checkSmall(t *testing.T, set *Set) {
	t.Helper()
	if !bytes.Equal(set.Train.Pixels, smallTrain) || !bytes.Equal(set.Test.Pixels, smallTest) ||
		!slices.Equal(set.Train.Labels, []uint16{0, 1, 2, 0, 1, 9}) || !slices.Equal(set.Test.Labels, []uint16{5, 6, 7}) {
		t.Errorf("train %v, test %v", set.Train, set.Test)
	}
	if i := set.Info; i.H != 2 || i.W != 2 || i.C != 1 || i.Train != 6 || i.Test != 3 || i.Classes != 10 {
		t.Errorf("info %+v", i)
	}
}

// notices collects what the user is told.
type notices []string

func (n *notices) add(text string) { *n = append(*n, text) }

func (n *notices) want(t *testing.T, texts ...string) {
	t.Helper()
	if len(*n) != len(texts) {
		t.Errorf("notices %q, want %d", *n, len(texts))
		return
	}
	for i, text := range texts {
		if !strings.Contains((*n)[i], text) {
			t.Errorf("notice %q, want %q in it", (*n)[i], text)
		}
	}
}

func TestCatalogue_IsComplete(t *testing.T) {
	if got, want := Names(), []string{"digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "binary_alpha_digits"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	for _, p := range publications() {
		i := p.info
		if i.Title == "" || i.Source == "" || i.Attribution == "" || len(i.ClassNames) != i.Classes || i.Train == 0 || i.Test == 0 {
			t.Errorf("%+v", i)
		}
		seen := map[string]bool{}
		for _, name := range i.ClassNames {
			if name == "" || seen[name] {
				t.Errorf("%s: class %q", i.Name, name)
			}
			seen[name] = true
		}
		var downloaded []string
		for _, f := range p.files {
			downloaded = append(downloaded, f.Name)
			if len(f.SHA256) != 64 || f.Bytes <= 0 || len(f.URLs) == 0 {
				t.Errorf("%s: %+v", i.Name, f)
			}
			for _, url := range f.URLs {
				if !strings.HasSuffix(url, "/"+f.Name) {
					t.Errorf("%s is at %s", f.Name, url)
				}
			}
		}
		if !slices.ContainsFunc(p.layouts, func(l layout) bool { return slices.Equal(l.files, downloaded) }) {
			t.Errorf("%s: what is downloaded is none of its layouts", i.Name)
		}
		if again, err := Find(i.Name); err != nil || !reflect.DeepEqual(again.Info(), i) {
			t.Errorf("%s: info changes", i.Name)
		}
	}
}

// Every place that is looked at is found, and an earlier one wins.
func TestPublished_IsFoundWhereOthersLeaveIt(t *testing.T) {
	root := t.TempDir()
	o := Options{
		DataDir: filepath.Join(root, "data"), CacheDir: filepath.Join(root, "cache"),
		KerasDir: filepath.Join(root, "keras"), SystemDir: filepath.Join(root, "share"), Offline: true,
	}
	idx, packed := smallIDX(false), smallIDX(true)
	for _, c := range []struct {
		name, in string
		files    files
		path     string
	}{
		// From the last place to the first: each one hides those before it.
		{"fashion_mnist", "share", packed.below("datasets/fashion-mnist"), "share/datasets/fashion-mnist"},
		{"fashion_mnist", "keras", packed.below("datasets/fashion-mnist"), "keras/datasets/fashion-mnist"},
		{"fashion_mnist", "cache", packed.below("fashion_mnist"), "cache/fashion_mnist"},
		{"fashion_mnist", "data", idx.below("FashionMNIST/raw"), "data/FashionMNIST/raw"},
		{"mnist", "keras", files{"datasets/mnist.npz": smallNPZ()}, "keras/datasets/mnist.npz"},
		{"mnist", "data", idx.below("MNIST/raw"), "data/MNIST/raw"},
		{"mnist", "data", files{"mnist.npz": smallNPZ()}, "data/mnist.npz"},
		{"mnist", "data", packed, "data"},
		{"mnist", "data", files{"mnist/mnist.npz": smallNPZ()}, "data/mnist/mnist.npz"},
		{"mnist", "data", packed.below("mnist"), "data/mnist"},
		{"mnist", "data", idx.below("mnist"), "data/mnist"},
	} {
		c.files.write(t, filepath.Join(root, c.in))
		d, err := Find(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Place(o); got != (Place{Path: filepath.Join(root, c.path)}) {
			t.Errorf("%s: place %+v, want %s", c.name, got, c.path)
		}
		var told notices
		o.Notice = told.add
		set, err := Open(t.Context(), c.name, o)
		if err != nil {
			t.Errorf("%s in %s: %v", c.name, c.path, err)
			continue
		}
		checkSmall(t, set)
		told.want(t, "which is not the published version: 6 and 3 records of 2x2x1 instead of 60000 and 10000 records of 28x28x1")
	}
}

func TestPublished_TellsWhatItPassesOver(t *testing.T) {
	folder := t.TempDir()
	part := smallIDX(true)
	delete(part, "t10k-labels-idx1-ubyte.gz")
	part.write(t, filepath.Join(folder, "mnist"))
	files{"datasets/cifar-10-batches-py/data_batch_1": []byte("pickle")}.write(t, folder)

	var told notices
	o := Options{DataDir: folder, KerasDir: folder, Notice: told.add}
	_, err := Open(t.Context(), "mnist", o)
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	told.want(t, "has a part of mnist only: t10k-labels-idx1-ubyte.gz is not there")

	told = nil
	_, err = Open(t.Context(), "cifar10", o)
	told.want(t, "cifar-10-batches-py is passed over: Python's pickle format is not read")
	for _, text := range []string{
		"load data set cifar10: ", "not in " + filepath.Join(folder, "cifar10") + ", " + folder, "and nothing is downloaded",
		"get cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html yourself",
		"yourself into " + filepath.Join(folder, "cifar10") + " and give --data-dir " + folder,
	} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v; want %q in it", err, text)
		}
	}
	if _, err = Open(t.Context(), "mnist", Options{}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "give --data-dir DIR") {
		t.Errorf("got %v", err)
	}
}

func TestPublished_NamesTheFileThatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		change func(f files)
		texts  []string
	}{
		"cut":    {func(f files) { f["t10k-labels-idx1-ubyte"] = f["t10k-labels-idx1-ubyte"][:9] }, []string{"t10k-labels-idx1-ubyte: values: the file ends early"}},
		"count":  {func(f files) { f["train-labels-idx1-ubyte"] = formattest.IDX([]int{5}, smallLabels[:5]) }, []string{"6 images in ", "5 labels in "}},
		"shape":  {func(f files) { f["t10k-images-idx3-ubyte"] = formattest.IDX([]int{3, 4, 1}, smallTest) }, []string{"images of 2x2x1 in ", " and of 4x1x1 in "}},
		"images": {func(f files) { f["train-images-idx3-ubyte"] = formattest.IDX([]int{24}, smallTrain) }, []string{"train-images-idx3-ubyte: ", "1 dimensions [24]"}},
		"labels": {func(f files) { f["train-labels-idx1-ubyte"] = formattest.IDX([]int{6, 1}, smallLabels[:6]) }, []string{"train-labels-idx1-ubyte: 2 dimensions"}},
		"class":  {func(f files) { f["train-labels-idx1-ubyte"][8] = 10 }, []string{"record 0 of train has label 10, want below 10"}},
		"none":   {func(f files) { replaceTraining(f, formattest.IDX([]int{0, 2, 2}, nil), formattest.IDX([]int{0}, nil)) }, []string{"nothing to train on"}},
	} {
		folder, f := t.TempDir(), smallIDX(false)
		c.change(f)
		f.write(t, folder)
		_, err := Open(t.Context(), "mnist", Options{DataDir: folder})
		for _, text := range append(c.texts, folder, "; remove ", "or downloaded") {
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v; want %q in it", name, err, text)
			}
		}
	}
	folder := t.TempDir()
	files{"mnist.npz": formattest.NPZ(zip.Store,
		formattest.File("x_train.npy", formattest.NPY("|u1", false, "1, 2, 2", smallTrain[:4])),
		formattest.File("y_train.npy", formattest.NPY("|u1", false, "1,", []byte{1})))}.write(t, folder)
	if _, err := Open(t.Context(), "mnist", Options{DataDir: folder}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "mnist.npz: ") {
		t.Errorf("without a test part: %v", err)
	}
}

// replaceTraining replaces the training files.
func replaceTraining(f files, images, labels []byte) {
	f["train-images-idx3-ubyte"], f["train-labels-idx1-ubyte"] = images, labels
}

// cifarRecords makes n records, whose labels count from first, and what their
// pixels are.
func cifarRecords(labelBytes, n, first int) (file, pixels []byte) {
	for i := range n {
		label := first + i
		file = append(file, make([]byte, labelBytes-1)...)
		file = append(file, byte(label%10))
		planes := formattest.Counting(3072 + label)[label:]
		file = append(file, planes...)
		for p := range 1024 {
			pixels = append(pixels, planes[p], planes[1024+p], planes[2048+p])
		}
	}
	return file, pixels
}

// The files of the archive stand in another order than their records.
func TestCIFAR_FolderAndArchiveAreTheSame(t *testing.T) {
	var entries []formattest.Entry
	var want, test []byte
	extracted := files{}
	first := 0
	for i := range 5 {
		file, pixels := cifarRecords(1, i+1, first)
		first += i + 1
		want = append(want, pixels...)
		name := fmt.Sprintf("cifar-10-batches-bin/data_batch_%d.bin", i+1)
		extracted[name] = file
		entries = append(entries, formattest.File(name, file))
	}
	file, test := cifarRecords(1, 2, first)
	extracted["cifar-10-batches-bin/test_batch.bin"] = file
	e := entries
	archive := formattest.Tar(e[2], e[0], formattest.File("cifar-10-batches-bin/readme.html", []byte("hello")),
		e[4], e[3], formattest.File("cifar-10-batches-bin/test_batch.bin", file), e[1])

	bare := files{}
	for name, data := range extracted {
		bare[filepath.Base(name)] = data
	}
	for name, f := range map[string]files{
		"folder": extracted, "folder of its name": extracted.below("cifar10"), "files": bare, "archive": {"cifar-10-binary.tar.gz": formattest.Gzip(archive)},
	} {
		folder := t.TempDir()
		f.write(t, folder)
		set, err := Open(t.Context(), "cifar10", Options{DataDir: folder})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(set.Train.Pixels, want) || !bytes.Equal(set.Test.Pixels, test) {
			t.Errorf("%s: other pixels, %d and %d bytes", name, len(set.Train.Pixels), len(set.Test.Pixels))
		}
		for i, label := range append(slices.Clone(set.Train.Labels), set.Test.Labels...) {
			if int(label) != i%10 {
				t.Errorf("%s: label %d of record %d", name, label, i)
			}
		}
	}
	for name, c := range map[string]struct {
		entries []formattest.Entry
		text    string
	}{
		"twice":   {append(slices.Clone(e), e[0]), "data_batch_1.bin in the archive: "},
		"missing": {e, "there is no test_batch.bin in it"},
		"damaged": {append(slices.Clone(e), formattest.File("test_batch.bin", file[1:])), "test_batch.bin in the archive: 6145 bytes are no whole number"},
	} {
		folder := t.TempDir()
		files{"cifar-10-binary.tar.gz": formattest.Gzip(formattest.Tar(c.entries...))}.write(t, folder)
		_, err := Open(t.Context(), "cifar10", Options{DataDir: folder})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "cifar-10-binary.tar.gz: ") || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of CIFAR-100 the archive alone can be compared with the published one.
func TestCIFAR100_IsComparedByItsArchive(t *testing.T) {
	train, _ := cifarRecords(2, 3, 0)
	test, _ := cifarRecords(2, 1, 3)
	folder := t.TempDir()
	archive := formattest.Gzip(formattest.Tar(formattest.File("cifar-100-binary/test.bin", test), formattest.File("cifar-100-binary/train.bin", train)))
	files{"cifar-100-binary.tar.gz": archive}.write(t, folder)
	var told notices
	set, err := Open(t.Context(), "cifar100", Options{DataDir: folder, Notice: told.add})
	if err != nil || set.Train.Len() != 3 || set.Train.Labels[2] != 2 || set.Info.Classes != 100 {
		t.Errorf("%+v, %v", set, err)
	}
	told.want(t, "which is not the published version")

	p := cifar100()
	p.info.Train, p.info.Test = 3, 1
	sum := sha256.Sum256(archive)
	for _, c := range []struct {
		sha256 string
		wants  []string
	}{{hex.EncodeToString(sum[:]), nil}, {p.files[0].SHA256, []string{"not the published version: other contents"}}} {
		told, p.files[0].SHA256 = nil, c.sha256
		if _, err := p.Load(t.Context(), Options{DataDir: folder, Notice: told.add}); err != nil {
			t.Error(err)
		}
		told.want(t, c.wants...)
	}
}

// alphaMAT is a file as binaryalphadigs.mat, of 2x3 images.
func alphaMAT(classes, examples int, change func(class, example int) []byte) []byte {
	o := binary.LittleEndian
	const mxCELL, mxUINT8, miUINT8 = 1, 9, 2
	var cells [][]byte
	for example := range examples {
		for class := range classes {
			cells = append(cells, formattest.MATArray(o, mxUINT8, []int{2, 3}, "", formattest.MATElement(o, miUINT8, change(class, example))))
		}
	}
	return formattest.MAT(o, formattest.MATArray(o, mxCELL, []int{classes, examples}, "dat", cells...))
}

func TestAlphaDigits_RowsAndClasses(t *testing.T) {
	folder := t.TempDir()
	// Column-major: rows 0 1 1 and 0 0 (class is even).
	files{"binaryalphadigs.mat": alphaMAT(36, 5, func(class, _ int) []byte { return []byte{0, 0, 1, 0, 1, byte(1 - class%2)} })}.write(t, folder)
	set, err := Open(t.Context(), "binary_alpha_digits", Options{DataDir: folder})
	if err != nil {
		t.Fatal(err)
	}
	if set.Train.Len() != 36*4 || set.Test.Len() != 36 || set.Info.H != 2 || set.Info.W != 3 {
		t.Errorf("%+v", set.Info)
	}
	for _, s := range []Split{set.Train, set.Test} {
		for i, label := range s.Labels {
			if want := []byte{0, 1, 1, 0, 0, byte(1 - label%2)}; !bytes.Equal(s.Pixels[6*i:6*i+6], want) {
				t.Errorf("class %d: %v, want %v", label, s.Pixels[6*i:6*i+6], want)
			}
		}
	}
	for name, c := range map[string]struct {
		file []byte
		text string
	}{
		"classes": {alphaMAT(35, 5, func(int, int) []byte { return make([]byte, 6) }), "dat is [35 5] with 175 cells"},
		"value":   {alphaMAT(36, 2, func(class, _ int) []byte { return []byte{0, 0, 0, 0, 0, byte(class / 35 * 2)} }), "cell 36, 1 of dat has the value 2, want 0 or 1"},
		"nothing": {formattest.MAT(binary.LittleEndian), "no variable called dat"},
		"matrix":  {formattest.MAT(binary.LittleEndian, formattest.MATArray(binary.LittleEndian, 9, []int{36, 1}, "dat", formattest.MATElement(binary.LittleEndian, 2, make([]byte, 36)))), "with 0 cells"},
		"no file": {[]byte("hello"), "the MAT header ends early"},
	} {
		files{"binaryalphadigs.mat": c.file}.write(t, folder)
		_, err := Open(t.Context(), "binary_alpha_digits", Options{DataDir: folder})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "binaryalphadigs.mat: ") || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// onWeb publishes files on a local server in place of a set's own.
func onWeb(t *testing.T, p published, f files) (published, *[]string) {
	t.Helper()
	asked := &[]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		*asked = append(*asked, name)
		if f[name] == nil {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(f[name])
	}))
	t.Cleanup(server.Close)
	p.files = slices.Clone(p.files)
	for i, file := range p.files {
		sum := sha256.Sum256(f[file.Name])
		p.files[i] = fetch.File{Name: file.Name, URLs: []string{server.URL + "/" + file.Name}, Bytes: int64(len(f[file.Name])), SHA256: hex.EncodeToString(sum[:])}
	}
	return p, asked
}

func TestPublished_IsDownloadedOnce(t *testing.T) {
	f := smallIDX(true)
	p, asked := onWeb(t, mnist(), f)
	var total int64
	for _, file := range p.files {
		total += file.Bytes
	}
	var progress []string
	var told notices
	o := Options{
		CacheDir: filepath.Join(t.TempDir(), "cache"), Notice: told.add, HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		Progress: func(file string, done, total int64) {
			if done == total {
				progress = append(progress, file)
			}
		},
	}
	if got := p.Place(o); got != (Place{Download: total}) {
		t.Errorf("place %+v, want a download of %d", got, total)
	}
	// What is in the cache already is not asked for.
	files{"mnist/train-labels-idx1-ubyte": formattest.IDX([]int{6}, smallLabels[:6])}.write(t, o.CacheDir)
	if got := p.Place(o); got != (Place{Download: total - p.files[1].Bytes}) {
		t.Errorf("place %+v", got)
	}
	set, err := p.Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	checkSmall(t, set)
	want := []string{idxNames[0], idxNames[2], idxNames[3]}
	if !slices.Equal(*asked, want) || !slices.Equal(progress, want) {
		t.Errorf("asked for %q, progress of %q, want %q", *asked, progress, want)
	}
	if got := p.Place(o); got != (Place{Path: filepath.Join(o.CacheDir, "mnist")}) {
		t.Errorf("place %+v", got)
	}
	o.Offline = true
	if set, err = p.Load(t.Context(), o); err != nil || len(*asked) != 3 {
		t.Errorf("a second time: %v, asked for %q", err, *asked)
	}
	checkSmall(t, set)

	// With the right digest nobody is told anything.
	p.digest, told = set.Digest(), nil
	if _, err := p.Load(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	told.want(t)
}

func TestPublished_DownloadsOfOtherContentsAreRefused(t *testing.T) {
	p, _ := onWeb(t, mnist(), smallIDX(true))
	p.files[1].SHA256 = strings.Repeat("0", 64)
	o := Options{CacheDir: t.TempDir(), HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	_, err := p.Load(t.Context(), o)
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, fetch.ErrChecksum) {
		t.Errorf("got %v", err)
	}
	for _, text := range []string{"download train-labels-idx1-ubyte.gz: http://127.0.0.1", "yourself into DIR/mnist and give --data-dir DIR"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v; want %q in it", err, text)
		}
	}
	if _, err := os.Stat(filepath.Join(o.CacheDir, "mnist", idxNames[1])); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
	o.Offline, o.CacheDir = true, t.TempDir()
	if _, err := p.Load(t.Context(), o); !errors.Is(err, ErrUnavailable) {
		t.Errorf("offline: %v", err)
	}
}
