// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"disdel/internal/data"
	"disdel/internal/data/format/formattest"
	"disdel/internal/nn"
	"disdel/internal/nn/safetensors"
)

// png8 writes a grey image of 8 x 8 pixels.
func png8(t *testing.T, pixels []byte) []byte {
	t.Helper()
	m := image.NewGray(image.Rect(0, 0, 8, len(pixels)/8))
	copy(m.Pix, pixels)
	var out bytes.Buffer
	if err := png.Encode(&out, m); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func digitsSet(t *testing.T) *data.Set {
	t.Helper()
	set, err := data.Open(t.Context(), "digits", data.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestPredict: what a model says of the test part, image by image, is what infer
// counted; whether the images come as arrays, as lines or as pictures, and whether
// the model comes from the store or from a file.
func TestPredict(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	trained := d.run("train", "digits", "--epochs", "1", "--json").want(t, ExitOK).object(t)
	digest := field[string](t, trained, "model", "digest")
	arrays, weights := filepath.Join(d.folder, "digits.npz"), filepath.Join(d.folder, "model.safetensors")
	d.run("datasets", "export", "digits", arrays).want(t, ExitOK)
	d.run("models", "export", digest[:8], weights).want(t, ExitOK)
	if left, err := filepath.Glob(filepath.Join(d.folder, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}

	confusion := field[[]any](t, trained, "confusion")
	set := digitsSet(t)
	counts := make([][]int, 10)
	for i := range counts {
		counts[i] = make([]int, 10)
	}
	all := d.run("predict", "digits", arrays, "--json").want(t, ExitOK)
	predictions := field[[]any](t, all.object(t), "predictions")
	if len(predictions) != set.Test.Len() || field[string](t, all.object(t), "model", "digest") != digest {
		t.Fatalf("%d predictions of %v", len(predictions), all.object(t)["model"])
	}
	for i, p := range predictions {
		classes := field[[]any](t, p, "classes")
		if field[float64](t, p, "index") != float64(i) || len(classes) != 1 {
			t.Fatalf("prediction %d is %v", i, p)
		}
		counts[set.Test.Labels[i]][int(field[float64](t, classes[0], "label"))]++
	}
	if got, want := fmt.Sprint(counts), strings.ReplaceAll(fmt.Sprint(confusion), "<nil>", "0"); got != want {
		t.Errorf("predicted %s; training counted %s", got, want)
	}
	// A file of the model says the same, and has no digest to tell.
	again := d.run("predict", weights, arrays, "--json").want(t, ExitOK)
	if want := strings.Replace(all.stdout, `,"digest":"`+digest+`"`, "", 1); again.stdout != want {
		t.Errorf("of the file: %.300s\nof the store: %.300s", again.stdout, want)
	}

	// The first three images in other forms.
	var lines strings.Builder
	var pictures []string
	for i := range 3 {
		pixels := set.Test.Pixels[64*i : 64*(i+1)]
		for _, v := range pixels {
			fmt.Fprintf(&lines, "%d,", v)
		}
		fmt.Fprintf(&lines, "%d\n", set.Test.Labels[i])
		pictures = append(pictures, d.write(fmt.Sprintf("scan%d.png", i), png8(t, pixels)))
	}
	header := strings.Repeat("p,", 64) + "label\n"
	table := d.write("three.csv", []byte(header+lines.String()))
	for _, args := range [][]string{pictures, {table}, {d.write("three.csv.gz", formattest.Gzip([]byte(header+lines.String())))}} {
		got := field[[]any](t, d.run(append([]string{"predict", digest[:8], "--top", "3", "--json"}, args...)...).want(t, ExitOK).object(t), "predictions")
		if len(got) != 3 {
			t.Fatalf("%v: %d predictions", args, len(got))
		}
		for i, p := range got {
			classes := field[[]any](t, p, "classes")
			first := field[[]any](t, predictions[i], "classes")[0]
			if len(classes) != 3 || fmt.Sprint(classes[0]) != fmt.Sprint(first) {
				t.Errorf("%v: image %d is %v; in the array %v", args, i, classes, first)
			}
			ordered := slices.IsSortedFunc(classes, func(x, y any) int {
				return -int(math.Copysign(1, field[float64](t, x, "probability")-field[float64](t, y, "probability")))
			})
			if !ordered {
				t.Errorf("the most probable are not first: %v", classes)
			}
		}
	}
	text := d.run("predict", "digits", pictures[0], table).want(t, ExitOK)
	rows := strings.Split(strings.TrimSpace(text.stdout), "\n")
	if len(rows) != 5 || !strings.HasPrefix(rows[0], "FILE") || !strings.HasPrefix(rows[1], pictures[0]+" ") || !strings.HasPrefix(rows[4], table+"[2] ") || !strings.HasSuffix(rows[2], " %") {
		t.Errorf("predict printed\n%s", text.stdout)
	}
}

// TestPredict_WhatIsWrong: a bad file costs its own prediction, is named, and
// makes the exit code 1.
func TestPredict_WhatIsWrong(t *testing.T) {
	d := newDesk(t)
	d.run("train", "digits", "--epochs", "1").want(t, ExitOK)
	good := d.write("good.png", png8(t, make([]byte, 64)))
	colour := image.NewRGBA(image.Rect(0, 0, 8, 8))
	for i := range 8 {
		colour.Set(i, i, color.RGBA{uint8(30 * i), 9, 200, 255})
	}
	var coloured, large bytes.Buffer
	if err := png.Encode(&coloured, colour); err != nil {
		t.Fatal(err)
	}
	if err := jpeg.Encode(&large, image.NewGray(image.Rect(0, 0, 20, 10)), nil); err != nil {
		t.Fatal(err)
	}
	whole := png8(t, make([]byte, 64))
	for name, c := range map[string]struct {
		file []byte
		says []string
	}{
		"colour.png": {coloured.Bytes(), []string{"in colour, the model takes grey ones", "mogrify -colorspace Gray"}},
		"large.jpg":  {large.Bytes(), []string{"20 x 10 pixels, the model takes 8 x 8", "mogrify -resize '8x8!'"}},
		"cut.png":    {whole[:len(whole)-20], []string{"bad format", "EOF"}},
		"flip.png":   {bytes.Replace(whole, []byte("IDAT"), []byte("IDAX"), 1), []string{"png"}},
		"cut.jpeg":   {large.Bytes()[:large.Len()/2], []string{"jpeg"}},
		"text.png":   {[]byte("hello"), []string{"neither PNG nor JPEG"}},
		"empty.png":  {nil, []string{"neither PNG nor JPEG"}},
		"note.txt":   {[]byte("hello"), []string{"want a file called .png, .jpg, .jpeg, .npz, .csv or .csv.gz"}},
		"x.npz":      {formattest.NPZ(0, formattest.File("x.npy", formattest.NPY("|u1", false, "1, 28, 28", make([]byte, 784)))), []string{"images of 28x28x1, want 8x8x1"}},
		"other.npz":  {formattest.NPZ(0, formattest.File("a.npy", formattest.NPY("|u1", false, "1", []byte{0}))), []string{"it has the arrays a; want x_test or x"}},
		"cut.npz":    {[]byte("PK\x03\x04"), []string{"zip directory: the file is damaged"}},
		"few.csv":    {[]byte("1,2,3\n"), []string{"line 1: 3 columns, want 64 for images of 8x8x1"}},
		"cut.csv.gz": {formattest.Gzip([]byte("1,2,3\n"))[:12], []string{"the file ends early"}},
	} {
		if strings.HasPrefix(name, "cut.png") || name == "flip.png" {
			c.says = c.says[len(c.says)-1:]
		}
		path := d.write(name, c.file)
		got := d.run("predict", "digits", path, good).want(t, ExitFailed, append(c.says[:len(c.says):len(c.says)], path, "1 of 2 files could not be used")...)
		if rows := strings.Count(got.stdout, "\n"); rows != 2 || !strings.Contains(got.stdout, good) {
			t.Errorf("%s: the good one is not predicted:\n%s", name, got.stdout)
		}
		object := d.run("predict", "digits", path, good, "--json").want(t, ExitFailed, "1 of 2 files").object(t)
		rows := field[[]any](t, object, "predictions")
		if len(rows) != 2 || !strings.Contains(field[string](t, rows[0], "error"), c.says[0]) || field[string](t, rows[1], "file") != good {
			t.Errorf("%s: %v", name, rows)
		}
	}
	d.run("predict", "digits", "nope.png", d.folder).want(t, ExitFailed, "nope.png: no such file", d.folder+": it is a folder", "2 of 2 files")

	for line, says := range map[string]string{
		"predict":                          "want a model and files with images",
		"predict digits":                   `after the model "digits"`,
		"predict mnist " + good:            `"mnist" is neither a data set with a model nor the start of a digest`,
		"predict 0000 " + good:             "disdel models --store dir://" + d.store(),
		"predict ./no.safetensors " + good: "model: open ./no.safetensors: no such file",
		"predict digits --top 0 " + good:   "--top",
	} {
		if strings.Contains(says, "--store") {
			line += " --store dir://" + d.store()
		}
		d.run(strings.Fields(line)...).want(t, ExitUsage, says)
	}
	if got := d.run("predict", "digits", "--top", "99", good).want(t, ExitOK); strings.Count(got.stdout, "\n") != 11 {
		t.Errorf("more classes than there are:\n%s", got.stdout)
	}
}

// TestPredict_BadModels: a file that is no model, or that lies about its size, is
// refused before memory is taken for it.
func TestPredict_BadModels(t *testing.T) {
	d := newDesk(t)
	trained := d.run("train", "digits", "--epochs", "1", "--json").want(t, ExitOK).object(t)
	digest := field[string](t, trained, "model", "digest")
	path := filepath.Join(d.folder, "good.safetensors")
	d.run("models", "export", "digits", path).want(t, ExitOK)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	picture := d.write("a.png", png8(t, make([]byte, 64)))
	length := int(binary.LittleEndian.Uint64(good))
	header := func(change func(map[string]any)) []byte {
		var h map[string]any
		if err := json.Unmarshal(good[8:8+length], &h); err != nil {
			t.Fatal(err)
		}
		change(h)
		raw, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(raw))), raw...), good[8+length:]...)
	}
	metadata := func(key, text string) []byte {
		return header(func(h map[string]any) { h["__metadata__"].(map[string]any)[key] = text })
	}
	// A model of a gigabyte, described and not there.
	wide := nn.Spec{Name: "wide", Input: nn.Shape{H: 8, W: 8, C: 1}, Classes: 10, Layers: []nn.Layer{
		{Kind: nn.KindFlatten}, {Kind: nn.KindDense, Units: 65536}, {Kind: nn.KindDense, Units: 4000}, {Kind: nn.KindDense, Units: 10},
	}}
	var dataset map[string]any
	if err := json.Unmarshal(good[8:8+length], &dataset); err != nil {
		t.Fatal(err)
	}
	meta := map[string]string{"disdel.model": string(wide.Canonical()), "disdel.dataset": dataset["__metadata__"].(map[string]any)["disdel.dataset"].(string)}
	var described []string
	at := 0
	for _, p := range wide.Params() {
		shape, err := json.Marshal(p.Shape)
		if err != nil {
			t.Fatal(err)
		}
		described = append(described, fmt.Sprintf(`%q:{"dtype":"F32","shape":%s,"data_offsets":[%d,%d]}`, p.Name, shape, at, at+4*p.Len))
		at += 4 * p.Len
	}
	rawMeta, err := json.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	text := `{"__metadata__":` + string(rawMeta) + "," + strings.Join(described, ",") + "}"
	liar := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)

	var stranger bytes.Buffer
	if err := safetensors.Write(&stranger, nil, []safetensors.Tensor{{Name: "a", Shape: []int{1}, Data: []float32{1}}}); err != nil {
		t.Fatal(err)
	}
	infinite := slices.Clone(good)
	for i := 8 + length; i < len(infinite); i += 4 {
		binary.LittleEndian.PutUint32(infinite[i:], math.Float32bits(float32(math.NaN())))
	}
	for name, c := range map[string]struct {
		file []byte
		says string
	}{
		"empty":     {nil, "truncated: 0 of 8 bytes"},
		"png":       {png8(t, make([]byte, 64)), "header of"},
		"long":      {append(binary.LittleEndian.AppendUint64(nil, 1<<62), good[8:]...), "header of 4611686018427387904 bytes, not in 2.."},
		"header":    {good[:100], "header ends after"},
		"cut":       {good[:len(good)-4], "truncated: 36 of 40 bytes"},
		"missing":   {good[:8+length], "cannot hold"},
		"tail":      {append(slices.Clone(good), 0), "data after the last tensor"},
		"stranger":  {stranger.Bytes(), "metadata disdel.model"},
		"no model":  {metadata("disdel.model", "{}"), "metadata disdel.model"},
		"other":     {metadata("disdel.model", `{"name":"x","input":{"h":8,"w":8,"c":1},"classes":10,"layers":[{"kind":"flatten"},{"kind":"dense","units":10}]}`), "tensor 0 is conv2d_1.weight"},
		"no data":   {metadata("disdel.dataset", ""), "metadata disdel.dataset"},
		"scale":     {metadata("disdel.dataset", `{"height":8,"width":8,"channels":1,"classes":10,"scale":-1}`), "scale -1"},
		"names":     {metadata("disdel.dataset", `{"height":8,"width":8,"channels":1,"classes":10,"scale":1,"class_names":["a"]}`), "1 names for 10 classes"},
		"data set":  {metadata("disdel.dataset", `{"height":9,"width":8,"channels":1,"classes":10,"scale":1}`), "takes 8x8x1"},
		"liar":      {liar, "cannot hold"},
		"overflow":  {bytes.Replace(good, []byte("data_offsets"), []byte("data_offsetz"), 1), "unknown field"},
		"shape":     {bytes.Replace(good, []byte(`"shape":[3,3,1,32]`), []byte(`"shape":[9,9,9,99]`), 1), "conv2d_1.weight"},
		"different": {bytes.Replace(good, []byte(`"F32"`), []byte(`"F64"`), 1), "F64"},
	} {
		got := d.run("predict", d.write(name+".safetensors", c.file), picture).want(t, ExitFailed, c.says, name+".safetensors")
		if got.stdout != "" {
			t.Errorf("%s: stdout %q", name, got.stdout)
		}
	}
	d.run("predict", d.write("nan.safetensors", infinite), picture).want(t, ExitFailed, "not finite", "a.png")
	d.run("predict", "digits", picture).want(t, ExitOK)
	damage(t, d.files("objects/models")[0])
	d.run("predict", "digits", picture).want(t, ExitFailed, "model "+digest, "corrupt", "training it again mends it", "disdel jobs "+field[string](t, trained, "job"))
	d.run("models", "export", "digits", filepath.Join(d.folder, "b.safetensors")).want(t, ExitFailed, "corrupt", "training it again mends it")
	d.run("infer", "digits").want(t, ExitFailed, "corrupt", "training it again mends it")
	if _, err := os.Stat(filepath.Join(d.folder, "b.safetensors")); !os.IsNotExist(err) {
		t.Errorf("a damaged model was exported: %v", err)
	}
}

// TestExport: files are written whole, beside nothing, and only where they are
// asked for.
func TestExport(t *testing.T) {
	d := emptyDesk(t)
	d.run("models", "export").want(t, ExitUsage, "want a model and a file")
	d.run("models", "export", "digits", "a.bin").want(t, ExitUsage, "a.bin: want a name that ends in .safetensors")
	d.run("models", "export", "digits", filepath.Join(d.folder, "a.safetensors")).want(t, ExitUsage, "no such model", "disdel models")
	d.run("datasets", "export", "digits").want(t, ExitUsage, "want a data set and a file", "mnist")
	d.run("datasets", "export", "digits", "a.csv").want(t, ExitUsage, "a.csv: want a name that ends in .npz")
	d.run("datasets", "export", "nope", filepath.Join(d.folder, "a.npz")).want(t, ExitUsage, `"nope"`)
	d.run("datasets", "export", "digits", filepath.Join(d.folder, "no", "a.npz")).want(t, ExitFailed, "no such file", "a folder that is there")
	if made, err := os.ReadDir(d.folder); err != nil || len(made) > 0 {
		t.Errorf("made %v, %v", made, err)
	}
	path := d.write("a.npz", []byte("old"))
	d.run("datasets", "export", "digits", path).want(t, ExitOK)
	d.run("plan", path, "--model", "mlp").want(t, ExitOK)
	if err := os.Mkdir(filepath.Join(d.folder, "dir.npz"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.run("datasets", "export", "digits", filepath.Join(d.folder, "dir.npz")).want(t, ExitFailed, "no regular file")
}
