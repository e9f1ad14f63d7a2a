// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"disdel/internal/job"
)

// example is the path of a file that the project comes with.
func example(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOwnModel: a model file is trained under its name, and the model that comes
// of it is like any other.
func TestOwnModel(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	trained := d.run("train", "digits", "--model", example(t, "model.json"), "--epochs", "2", "--json").want(t, ExitOK).object(t)
	if got := field[string](t, trained, "model", "name"); got != "small-norm" {
		t.Errorf("the model is called %q", got)
	}
	// Conv 3*3*16, norm 4*16, conv 3*3*16*32 + 32, dense 32*32 + 32 and 32*10 + 10.
	if got, want := field[float64](t, trained, "model", "parameters"), 144.0+64+4640+1056+330; got != want {
		t.Errorf("%v parameters, want %v", got, want)
	}
	if got := d.run("models").want(t, ExitOK).stdout; !strings.Contains(got, "small-norm") {
		t.Errorf("models:\n%s", got)
	}
	if got := d.run("jobs", field[string](t, trained, "job")).want(t, ExitOK).stdout; !strings.Contains(got, "small-norm, 6,234 parameters") {
		t.Errorf("the job:\n%s", got)
	}
	infer := d.run("infer", "digits", "--json").want(t, ExitOK).object(t)
	if a, b := field[float64](t, infer, "accuracy"), field[float64](t, trained, "accuracy"); a != b {
		t.Errorf("infer says %v, training %v", a, b)
	}

	// Without a name of its own it is called like its file; what equals the
	// defaults changes nothing.
	const layers = `{"layers": [{"kind": "flatten"}, {"kind": "dense"}]}`
	const same = `{"name": "tiny", "input": {"h": 8, "w": 8, "c": 1}, "classes": 10, "layers": [{"kind": "flatten"}, {"kind": "dense", "units": 10}]}`
	var digests []string
	for name, text := range map[string]string{"tiny.json": layers, "other.json": same} {
		path := d.write(name, []byte(text))
		got := d.run("train", "digits", "--model", path, "--epochs", "1", "--json").want(t, ExitOK).object(t)
		if name := field[string](t, got, "model", "name"); name != "tiny" {
			t.Errorf("%s is called %q", path, name)
		}
		digests = append(digests, field[string](t, got, "model", "digest"))
	}
	if digests[0] != digests[1] {
		t.Errorf("the same model in two forms: %v", digests)
	}
}

func TestOwnModel_WhatIsWrong(t *testing.T) {
	huge := `{"layers": [{"kind": "flatten"}, {"kind": "dense", "units": 65536}, {"kind": "dense", "units": 65536}, {"kind": "dense"}]}`
	for name, c := range map[string]struct {
		text string
		says []string
	}{
		"kernel":  {"{\"layers\": [\n  {\"kind\": \"conv2d\", \"filters\": 2, \"kernel\": 9},\n  {\"kind\": \"flatten\"}, {\"kind\": \"dense\"}]}", []string{"line 2, column 3: layer 0 (conv2d): kernel 9 does not fit input 8x8x1"}},
		"pool":    {`{"layers": [{"kind": "maxpool", "pool": 9}, {"kind": "flatten"}, {"kind": "dense"}]}`, []string{"column 13: layer 0 (maxpool): pool 9 does not fit"}},
		"nothing": {`{"layers": []}`, []string{"number of layers is 0"}},
		"no list": {`{"name": "x"}`, []string{"number of layers is 0"}},
		"open":    {`{"layers": [{"kind": "flatten"}, {"kind": "relu"}]}`, []string{"column 34: layer 1 (relu): the last layer must be dense with 10 units, one per class"}},
		"classes": {`{"layers": [{"kind": "flatten"}, {"kind": "dense", "units": 7}]}`, []string{"layer 1 (dense): the last layer must be dense with 10 units"}},
		"other":   {`{"classes": 7, "layers": [{"kind": "flatten"}, {"kind": "dense"}]}`, []string{"7 classes, the data set has 10"}},
		"shape":   {`{"input": {"h": 28, "w": 28, "c": 1}, "layers": [{"kind": "flatten"}, {"kind": "dense"}]}`, []string{"input 28x28x1, the data set has 8x8x1"}},
		"huge":    {huge, []string{"layer 2 (dense): more than 268435456 parameters"}},
		"flat":    {`{"layers": [{"kind": "dense"}]}`, []string{"layer 0 (dense): input 8x8x1 is not flat: put a flatten layer before"}},
		"kind":    {`{"layers": [{"kind": "conv3d"}, {"kind": "dense"}]}`, []string{`layer 0 ("conv3d"): unknown kind, known are: conv2d, relu`}},
		"field":   {"{\n\"layers\": [{\"kind\": \"flatten\"},\n{\"kind\": \"dense\", \"unit\": 10}]}", []string{`line 3, column 19: unknown field "unit", known are: back, filters`}},
		"type":    {`{"layers": [{"kind": "flatten"}, {"kind": "dense", "units": "ten"}]}`, []string{"column 61: layers.units is string, want a whole number"}},
		"unused":  {`{"layers": [{"kind": "flatten", "pool": 2}, {"kind": "dense"}]}`, []string{"layer 0 (flatten): pool is 2, but this kind has none"}},
		"twice":   {`{"layers": [{"kind": "flatten", "kind": "relu"}]}`, []string{`column 33: field "kind" appears twice`}},
		"json":    {"{\"layers\": [\n{\"kind\": \"flatten\"},,]}", []string{"line 2, column 21: invalid character ','"}},
		"short":   {`{"layers": [`, []string{"column 13: the text ends early"}},
		"empty":   {"", []string{"line 1, column 1: the text ends early"}},
		"image":   {"\x89PNG\r\n\x1a\n", []string{"line 1, column 1: invalid character"}},
		"long":    {strings.Repeat(" ", 1<<16) + "{}", []string{"more than 65536 bytes"}},
		"name":    {`{"name": "` + strings.Repeat("n", 129) + `", "layers": [{"kind": "flatten"}, {"kind": "dense"}]}`, []string{"name: more than 128 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			path := d.write(name+".json", []byte(c.text))
			for _, command := range []string{"train", "plan"} {
				got := d.run(command, "digits", "--model", path).want(t, ExitUsage, append(c.says, path)...)
				if got.stdout != "" || strings.Count(got.stderr, "\n") != 2 {
					t.Errorf("stdout %q, stderr %q", got.stdout, got.stderr)
				}
			}
			if _, err := os.Stat(d.store()); !os.IsNotExist(err) {
				t.Errorf("the store was made: %v", err)
			}
		})
	}
	d := newDesk(t)
	d.run("train", "digits", "--model", "./nope.json").want(t, ExitUsage, "--model: open ./nope.json: no such file")
	d.run("train", "digits", "--model", d.folder).want(t, ExitUsage, "--model: read "+d.folder, "is a directory")
	d.run("train", "digits", "--model", "3f2a9c").want(t, ExitUsage, "disdel infer digits --model 3f2a9c")
	d.run("train", "digits", "--model", "vgg").want(t, ExitUsage, "cnn, cnn-deep, lenet5, mlp, resnet20", "--model my-model.json")
	// A model that can be built but not run here is a matter of the plan.
	wide := d.write("wide.json", []byte(strings.Replace(huge, "65536", "2048", 1)))
	d.run("train", "digits", "--model", wide).want(t, ExitFailed, "infeasible", "512 MB", "short by")
}

// TestOwnModel_Resumed: a job carries its model along, so that it ends without the
// file.
func TestOwnModel_Resumed(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	text, err := os.ReadFile(example(t, "model.json"))
	if err != nil {
		t.Fatal(err)
	}
	path := d.write("mine.json", text)
	train := []string{"train", "digits", "--model", path, "--epochs", "4"}
	r := d.start(train...)
	r.until("training, round")
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.end()
	jobs := field[[]any](t, d.run("jobs", "--json").want(t, ExitOK).object(t), "jobs")
	if len(jobs) != 1 || field[string](t, jobs[0], "status") != string(job.Interrupted) {
		t.Fatalf("jobs %v; want one that was interrupted", jobs)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	resumed := d.run("resume", field[string](t, jobs[0], "job"), "--json").want(t, ExitOK).object(t)
	d.write("mine.json", text)
	whole := d.run(append(train, "--json")...).want(t, ExitOK).object(t)
	if a, b := field[string](t, resumed, "model", "digest"), field[string](t, whole, "model", "digest"); a != b {
		t.Errorf("resumed: model %s; whole: %s", a, b)
	}
}
