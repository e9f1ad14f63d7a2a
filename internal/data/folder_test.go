// SPDX-License-Identifier: Apache-2.0

package data

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// greyPNG is an image of one grey.
func greyPNG(w, h int, v byte) []byte {
	m := image.NewGray(image.Rect(0, 0, w, h))
	for i := range m.Pix {
		m.Pix[i] = v
	}
	return encodePNG(m)
}

func colourPNG(w, h int, c color.NRGBA) []byte {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		m.SetNRGBA(i%w, i/w, c)
	}
	return encodePNG(m)
}

func encodePNG(m image.Image) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestFolder_ClassesAndOrder(t *testing.T) {
	f := files{".hidden/x.png": nil, "oak/.DS_Store": nil, "README.txt": []byte("hello"), "oak/Thumbs.db": nil, "oak/notes.txt": nil}
	for i := range 5 {
		f[fmt.Sprintf("oak/%d.png", i)] = greyPNG(3, 2, byte(100+i))
		f[fmt.Sprintf("elm/%d.PNG", i)] = greyPNG(3, 2, byte(200+i))
	}
	set, told, err := openOwn(t, f.below("leaves"), "leaves", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if i := set.Info; i.Name != "leaves" || i.H != 2 || i.W != 3 || i.C != 1 || !slices.Equal(i.ClassNames, []string{"elm", "oak"}) || i.Train != 8 || i.Test != 2 {
		t.Errorf("info %+v", i)
	}
	for _, s := range []Split{set.Train, set.Test} {
		last := byte(0)
		for i, label := range s.Labels {
			v := s.Pixels[6*i]
			if label == 0 != (v >= 200) {
				t.Errorf("an image of %d has label %d", v, label)
			}
			if i > 0 && s.Labels[i-1] == label && v <= last {
				t.Errorf("image %d after %d", v, last)
			}
			last = v
		}
	}
	told.want(t, "leaves: 2 files that are not called .png, .jpg or .jpeg are passed over, the first is ", "leaves has no test part")
}

func TestFolder_TrainAndTest(t *testing.T) {
	f := files{"train/a/1.png": greyPNG(1, 1, 200), "train/a/2.png": greyPNG(1, 1, 201), "train/b/1.png": greyPNG(1, 1, 202)}
	for _, tests := range [][]string{{"test"}, {"val"}, {"valid"}, {"validation"}, {"test", "val"}} {
		g := files{}
		for name, data := range f {
			g[name] = data
		}
		for i, name := range tests {
			g[name+"/b/9.png"] = greyPNG(1, 1, byte(i))
		}
		set, told, err := openOwn(t, g.below("set"), "set", Options{})
		if err != nil || !bytes.Equal(set.Train.Pixels, []byte{200, 201, 202}) || !bytes.Equal(set.Test.Pixels, []byte{0}) || !slices.Equal(set.Test.Labels, []uint16{1}) {
			t.Errorf("%q: %+v, %v", tests, set, err)
		}
		if len(tests) == 2 {
			told.want(t, "val is passed over: ")
		} else {
			told.want(t)
		}
	}
	// With a folder beside it that is neither, train is a class.
	set, _, err := openOwn(t, files{"train/1.png": greyPNG(1, 1, 200), "train/2.png": greyPNG(1, 1, 200), "train/3.png": greyPNG(1, 1, 200), "car/1.png": greyPNG(1, 1, 200)}.below("vehicles"), "vehicles", Options{})
	if err != nil || !slices.Equal(set.Info.ClassNames, []string{"car", "train"}) {
		t.Errorf("%+v, %v", set, err)
	}
	// Without a test folder a part is held out.
	set, told, err := openOwn(t, files{"train/a/1.png": greyPNG(1, 1, 200), "train/a/2.png": greyPNG(1, 1, 201), "train/a/3.png": greyPNG(1, 1, 201), "train/b/1.png": greyPNG(1, 1, 202)}.below("set"), "set", Options{})
	if err != nil || set.Test.Len() != 1 {
		t.Errorf("%+v, %v", set, err)
	}
	told.want(t, `one record only in class "b"; it is trained on and not tested`, "set has no test part")
}

func TestFolder_Colours(t *testing.T) {
	set, _, err := openOwn(t, files{
		"set/a/1.png": colourPNG(1, 1, color.NRGBA{200, 100, 50, 255}), "set/a/2.png": colourPNG(1, 1, color.NRGBA{200, 100, 50, 1}),
		"set/a/3.png": colourPNG(1, 1, color.NRGBA{200, 100, 50, 0}), "set/b/1.png": colourPNG(1, 1, color.NRGBA{200, 100, 50, 255}),
	}, "set", Options{})
	if err != nil || set.Info.C != 3 {
		t.Fatalf("%+v, %v", set, err)
	}
	if all := append(slices.Clone(set.Train.Pixels), set.Test.Pixels...); !bytes.Equal(all, bytes.Repeat([]byte{200, 100, 50}, 4)) {
		t.Errorf("pixels %v", all)
	}
}

func TestFolder_SaysWhatIsWrong(t *testing.T) {
	good := greyPNG(2, 2, 200)
	for name, c := range map[string]struct {
		files files
		texts []string
	}{
		"sizes":         {files{"a/1.png": good, "b/2.png": greyPNG(3, 2, 200)}, []string{"b/2.png: ", "it has 3 x 2 pixels and ", "a/1.png has 2 x 2; bring all to one size", "mogrify -resize '2x2!'"}},
		"channels":      {files{"a/1.png": good, "b/2.png": colourPNG(2, 2, color.NRGBA{1, 2, 3, 255})}, []string{"b/2.png: ", "it is in colour and ", "a/1.png is grey; convert all"}},
		"in test":       {files{"train/a/1.png": good, "train/b/1.png": good, "test/a/2.png": greyPNG(3, 2, 200)}, []string{"test/a/2.png: ", "train/a/1.png has 2 x 2"}},
		"unknown class": {files{"train/a/1.png": good, "train/b/1.png": good, "test/c/2.png": good}, []string{`test has the class "c", which `}},
		"empty test":    {files{"train/a/1.png": good, "train/b/1.png": good, "test/a/x.txt": nil}, []string{"there are no images in "}},
		"no images":     {files{"a/x.gif": good, "b/y.gif": good}, []string{"there are no records to train on"}},
		"no folders":    {files{"1.png": good}, []string{"has no folders in it; want one for each class"}},
		"deeper":        {files{"a/1.png": good, "a/images/1.png": good, "b/1.png": good}, []string{"a/images is a folder within a class"}},
		"damaged":       {files{"a/1.png": good[:40], "b/1.png": good}, []string{"a/1.png: ", "unexpected EOF"}},
		"no PNG":        {files{"a/1.png": []byte("GIF89a"), "b/1.png": good}, []string{"a/1.png: ", "neither PNG nor JPEG"}},
		"one class":     {files{"a/1.png": good, "a/2.png": good}, []string{`all records are of one class, "a"`}},
	} {
		_, _, err := openOwn(t, c.files.below("set"), "set", Options{})
		for _, text := range c.texts {
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v; want %q in it", name, err, text)
			}
		}
	}
	folder := t.TempDir()
	files{"a/1.png": good, "b/1.png": good}.write(t, folder)
	if err := os.Symlink(filepath.Join(folder, "nowhere"), filepath.Join(folder, "c")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), folder, Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link to nowhere: %v", err)
	}
}

// Links to folders and files are what they lead to.
func TestFolder_FollowsLinks(t *testing.T) {
	folder := t.TempDir()
	var images []string
	f := files{}
	for i := range 4 {
		images = append(images, fmt.Sprintf("real/%d.png", i))
		f[images[i]] = greyPNG(1, 1, 200)
	}
	f.write(t, folder)
	set := filepath.Join(folder, "set")
	files{"b/1.png": f[images[0]]}.write(t, set)
	if err := os.Symlink(filepath.Join(folder, "real"), filepath.Join(set, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(folder, images[1]), filepath.Join(set, "b", "2.png")); err != nil {
		t.Fatal(err)
	}
	got, err := Open(t.Context(), set, Options{})
	if err != nil || got.Train.Len()+got.Test.Len() != 6 {
		t.Errorf("%+v, %v", got, err)
	}
}
