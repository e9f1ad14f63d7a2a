// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"disdel/internal/job"
)

// planned is the spec that plan prints for a command line.
func (d *desk) planned(args ...string) map[string]any {
	d.t.Helper()
	object := d.run(append([]string{"plan", "--json"}, args...)...).want(d.t, ExitOK).object(d.t)
	return field[map[string]any](d.t, object, "spec")
}

// TestJobFile: a file's values stand for flags that are not given; what plan
// prints is such a file.
func TestJobFile(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	path := example(t, "job.json")
	got := d.planned("--job", path)
	for name, want := range map[string]any{
		"kind": "train", "dataset": "digits", "model": "mlp", "epochs": 10.0, "batch": 64.0, "optimizer": "adam",
		"learning_rate": 0.001, "seed": 1.0, "replicas": 4.0, "memory": float64(128 * job.MB), "timeout": 6e10,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	changed := d.planned("--job", path, "--epochs", "2", "--seed", "0", "--lr", "0.5", "--model", "cnn", "--memory", "256", "--timeout", "30", "--workers", "2", "digits")
	for name, want := range map[string]any{
		"epochs": 2.0, "seed": 0.0, "learning_rate": 0.5, "model": "cnn", "memory": float64(256 * job.MB), "timeout": 3e10, "replicas": 2.0, "batch": 64.0,
	} {
		if changed[name] != want {
			t.Errorf("with a flag, %s is %v, want %v", name, changed[name], want)
		}
	}
	// An explicit flag wins even if it says what would be the default.
	if got := d.planned("--job", path, "--epochs", "5")["epochs"]; got != 5.0 {
		t.Errorf("--epochs 5 became %v", got)
	}

	for _, args := range [][]string{
		{"digits", "--seed", "0", "--model", example(t, "model.json"), "--rounds", "7", "--local-batch", "3", "--containers", "1", "--threads", "1", "--optimizer", "sgd"},
		{"digits", "--schedule", "cosine", "--warmup", "0.5", "--l2", "0.0001", "--clip", "2", "--label-smoothing", "0.1", "--flips", "--shifts", "2"},
		{"--job", path, "--batch", "32"},
	} {
		spec := d.planned(args...)
		raw, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		again := d.planned("--job", d.write("again.json", raw))
		if !reflect.DeepEqual(again, spec) {
			t.Errorf("%v: the printed spec gives %v, want %v", args, again, spec)
		}
	}
	// --model takes the place of a model in the file.
	raw, err := json.Marshal(d.planned("digits", "--model", example(t, "model.json")))
	if err != nil {
		t.Fatal(err)
	}
	if got := d.planned("--job", d.write("own.json", raw), "--model", "mlp"); got["model"] != "mlp" || got["model_spec"] != nil {
		t.Errorf("--model mlp over a file's model: %v", got)
	}
	trained := d.run("train", "--job", path, "--epochs", "1", "--json").want(t, ExitOK).object(t)
	if field[string](t, trained, "model", "name") != "mlp" || field[float64](t, trained, "replicas") != 4 {
		t.Errorf("trained %v", trained["model"])
	}
	digest := field[string](t, trained, "model", "digest")
	infer := d.write("infer.json", []byte(`{"kind": "infer", "dataset": "digits", "model": "`+digest[:6]+`", "containers": 1, "threads": null}`))
	if got := d.run("infer", "--job", infer, "--json").want(t, ExitOK).object(t); field[string](t, got, "model", "digest") != digest {
		t.Errorf("infer ran %v", got["model"])
	}
}

// TestJobFile_EveryField: each field of a spec is set by a flag of train or of
// infer, or has no flag for a reason.
func TestJobFile_EveryField(t *testing.T) {
	spec := reflect.TypeFor[job.Spec]()
	for i := range spec.NumField() {
		name := jsonName(spec.Field(i))
		found := noFlag[name]
		for _, command := range []string{"train", "infer"} {
			cmd, _, err := Root().Find([]string{command})
			if err != nil {
				t.Fatal(err)
			}
			found = found || cmd.Flags().Lookup(flagOf(name)) != nil
		}
		if !found {
			t.Errorf("%s: there is no flag --%s", name, flagOf(name))
		}
	}
}

func TestJobFile_WhatIsWrong(t *testing.T) {
	for text, says := range map[string]string{
		"":                           "line 1, column 1: the text ends early",
		"[]":                         "line 1, column 1: the value is array, want an object",
		"null":                       "names no data set",
		"{}":                         "names no data set; give one: disdel train DATASET --job ",
		"{\n  \"epoch\": 3}":         `line 2, column 3: unknown field "epoch", known are: batch, `,
		`{"epochs": "three"}`:        `line 1, column 2: epochs: "three" is not a whole number`,
		`{"epochs": 2.5}`:            "line 1, column 2: epochs: 2.5 is not a whole number",
		`{"epochs": 1, "epochs": 2}`: `line 1, column 15: field "epochs" appears twice`,
		`{"seed": -1}`:               "line 1, column 2: seed: -1 is not a whole number of at least 0",
		`{"memory": "much"}`:         `line 1, column 2: memory: memory "much"`,
		`{"memory": "0.4B"}`:         `memory: memory "0.4B": want more than 0`,
		`{"memory": 0.5}`:            "line 1, column 2: memory: 0.5 is not a whole number",
		`{"memory": [1]}`:            "memory: [1] is not a whole number",
		`{"timeout": "soon"}`:        `line 1, column 2: timeout: time "soon"`,
		`{"kind": "infer"}`:          `line 1, column 2: kind is "infer", train wants "train"`,
		`{"output": "a.csv"}`:        "line 1, column 2: train has no output",
		`{"learning_rate": 1e999, "dataset": "digits"}`:                                    "1e999 is not a number",
		`{"dataset": "digits", "epochs": -3}`:                                              "epochs -3: want 1 to",
		`{"dataset": "digits", "optimizer": "lion"}`:                                       `optimizer "lion"`,
		`{"dataset": "nope"}`:                                                              `data set "nope"`,
		"{\"dataset\": \"digits\",\n\"model_spec\": {\"layers\": [{\"kind\": \"dens\"}]}}": `model_spec: on digits: nn: bad model: line 1, column 13: layer 0 ("dens")`,
		`{"model_spec": 3, "dataset": "digits"}`:                                           "model_spec: nn: bad model: line 1, column 1: the value is number, want an object",
		`{"dataset": "digits"} x`:                                                          "line 1, column 23: more text follows",
		strings.Repeat(" ", maxJobFile) + "{}":                                             "more than",
	} {
		d := newDesk(t)
		path := d.write("job.json", []byte(text))
		got := d.run("train", "--job", path).want(t, ExitUsage, says)
		if got.stdout != "" || strings.Count(got.stderr, "\n") != 2 {
			t.Errorf("%q: stdout %q, stderr %q", text, got.stdout, got.stderr)
		}
		if _, err := os.Stat(d.store()); !os.IsNotExist(err) {
			t.Errorf("%q: the store was made", text)
		}
	}
	d := newDesk(t)
	d.run("train", "--job", "nope.json").want(t, ExitUsage, "--job nope.json: open nope.json: no such file")
	for field, says := range map[string]string{"epochs": "infer has no epochs", "seed": "infer has no seed", "model_spec": "infer has no model_spec"} {
		path := d.write("infer.json", []byte(`{"`+field+`": {}, "dataset": "digits"}`))
		if field != "model_spec" {
			path = d.write("infer.json", []byte(`{"`+field+`": 1, "dataset": "digits"}`))
		}
		d.run("infer", "--job", path).want(t, ExitUsage, "line 1, column 2: "+says)
	}
}

// FuzzJobFile: what is read is a spec that can be written and read again; anything
// else has a place.
func FuzzJobFile(f *testing.F) {
	example, err := os.ReadFile("../../examples/job.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{string(example), "{}", `{"memory": "1.5GB", "timeout": 5, "seed": null}`, `{"model_spec": {"layers": []}}`, "[1]"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		g, err := parseJob(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "line ") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		raw, err := json.Marshal(g.spec)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		again, err := parseJob(raw)
		if err != nil {
			t.Fatalf("%q is written as %s: %v", text, raw, err)
		}
		one, two := g.spec, again.spec
		if !noModelSpec(one.ModelSpec) {
			one.ModelSpec, two.ModelSpec = nil, nil // spaces
		}
		if !reflect.DeepEqual(one, two) {
			t.Fatalf("%q: %+v became %+v", text, one, two)
		}
	})
}
