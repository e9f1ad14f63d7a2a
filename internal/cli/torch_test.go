// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// endToEnd says that tests of a part beyond the built-in ones were asked for; then
// it must be there.
func endToEnd(part string) bool {
	return slices.Contains(strings.Split(os.Getenv("DISDEL_E2E"), ","), part)
}

// python finds one that has PyTorch.
func python(t *testing.T) string {
	t.Helper()
	var tried []string
	for _, name := range []string{os.Getenv("DISDEL_PYTHON"), "python3", "/usr/bin/python3"} {
		if name == "" {
			continue
		}
		out, err := exec.CommandContext(t.Context(), name, "-c", "import numpy, torch").CombinedOutput()
		if err == nil {
			return name
		}
		tried = append(tried, fmt.Sprintf("%s: %v %s", name, err, out))
	}
	t.Fatalf("DISDEL_E2E names torch, so there must be a Python with torch and numpy: %v", tried)
	return ""
}

// TestTorch: PyTorch, which shares no code with this program, gets the same
// accuracy of exported models, but for a record that rounding may turn.
func TestTorch(t *testing.T) {
	if !endToEnd("torch") {
		return
	}
	interpreter := python(t)
	d := newDesk(t)
	arrays := filepath.Join(d.folder, "digits.npz")
	d.run("datasets", "export", "digits", arrays).want(t, ExitOK)
	strided := d.write("strided.json", []byte(`{"layers": [
		{"kind": "conv2d", "filters": 5, "kernel": 4, "stride": 3, "padding": "same"}, {"kind": "relu"}, {"kind": "batchnorm"},
		{"kind": "conv2d", "filters": 6, "kernel": 2, "padding": "valid"}, {"kind": "avgpool", "pool": 2},
		{"kind": "dense", "units": 12, "no_bias": true}, {"kind": "batchnorm"}, {"kind": "relu"}, {"kind": "dense"}]}`))
	// Shortcuts over flat and over other shapes, of the input and of one output twice.
	residual := d.write("residual.json", []byte(`{"layers": [
		{"kind": "conv2d", "filters": 4, "kernel": 3, "stride": 3, "padding": "same"}, {"kind": "add", "back": 2, "stride": 3},
		{"kind": "conv2d", "filters": 4, "kernel": 2, "padding": "same"}, {"kind": "relu"}, {"kind": "add", "back": 3},
		{"kind": "globalavgpool"}, {"kind": "dense", "units": 9}, {"kind": "add", "back": 2, "stride": 2}, {"kind": "dense"}]}`))
	// Enlarged, since lenet5 takes nothing so small.
	large := filepath.Join(d.folder, "large.npz")
	const enlarge = "import sys, numpy; a = numpy.load(sys.argv[1]); " +
		"numpy.savez(sys.argv[2], **{n: a[n].repeat(2, 1).repeat(2, 2) if n[0] == 'x' else a[n] for n in ('x_train', 'y_train', 'x_test', 'y_test')})"
	if out, err := exec.CommandContext(t.Context(), interpreter, "-c", enlarge, arrays, large).CombinedOutput(); err != nil {
		t.Fatalf("enlarge: %v\n%s", err, out)
	}
	for _, model := range []string{"cnn", "mlp", "cnn-deep", "resnet20", "lenet5", example(t, "model.json"), strided, residual} {
		dataset, arrays := "digits", arrays
		if model == "lenet5" {
			dataset, arrays = large, large
		}
		trained := d.run("train", dataset, "--model", model, "--epochs", "2", "--json").want(t, ExitOK).object(t)
		digest := field[string](t, trained, "model", "digest")
		weights := filepath.Join(d.folder, "model.safetensors")
		d.run("models", "export", digest, weights).want(t, ExitOK)
		out, err := exec.CommandContext(t.Context(), interpreter, example(t, "pytorch_eval.py"), weights, arrays).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", model, err, out)
		}
		var correct, records int
		_, counts, _ := strings.Cut(string(out), "(")
		if _, err := fmt.Sscanf(counts, "%d of %d test records)", &correct, &records); err != nil {
			t.Fatalf("%s: the script printed %q: %v", model, out, err)
		}
		want := field[float64](t, trained, "accuracy") * field[float64](t, trained, "records")
		t.Logf("%s: PyTorch %d, disdel %.0f of %d", model, correct, want, records)
		if float64(records) != field[float64](t, trained, "records") || float64(correct) < want-1.5 || float64(correct) > want+1.5 {
			t.Errorf("%s: PyTorch has %d of %d right, disdel %.0f", model, correct, records, want)
		}
	}
}
