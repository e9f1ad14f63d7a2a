// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestPrice: money is told to those who say what a GB-second costs, and to nobody
// else.
func TestPrice(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, line := range []string{"train digits --epochs 1", "infer digits", "jobs"} {
		args := strings.Fields(line)
		free := d.run(append(args, "--json")...).want(t, ExitOK)
		if strings.Contains(free.stdout, `"cost"`) {
			t.Errorf("%s: a cost without a price: %s", line, free.stdout)
		}
		object := d.run(append(args, "--json", "--price", "0.5")...).want(t, ExitOK).object(t)
		metrics := object["metrics"]
		if line == "jobs" {
			metrics = field[map[string]any](t, field[[]any](t, object, "jobs")[0])["metrics"]
		}
		if cost, used := field[float64](t, metrics, "cost"), field[float64](t, metrics, "gb_seconds"); math.Abs(cost-0.5*used) > 1e-12 || cost <= 0 {
			t.Errorf("%s: cost %v of %v GB-seconds", line, cost, used)
		}
	}
	if got := d.run("infer", "digits", "--price", "0.0000167").want(t, ExitOK).stdout; !regexp.MustCompile(`(?m)^cost +[0-9.]+ GB-seconds, [0-9]+\.[0-9]+ in money$`).MatchString(got) {
		t.Errorf("the table has no cost:\n%s", got)
	}
	for _, price := range []string{"0", "-1", "nan", "inf", "cheap", "1e10"} {
		d.run("infer", "digits", "--price", price).want(t, ExitUsage, "--price", price, "above 0")
	}
}

// TestPrice_Plan: a plan tells what it expects to cost.
func TestPrice_Plan(t *testing.T) {
	d := newDesk(t)
	if free := d.run("plan", "digits", "--json").want(t, ExitOK); strings.Contains(free.stdout, `"cost"`) {
		t.Errorf("a cost without a price: %s", free.stdout)
	}
	object := d.run("plan", "digits", "--json", "--price", "0.5").want(t, ExitOK).object(t)
	if cost, used := field[float64](t, object, "cost"), field[float64](t, object, "resources", "gb_seconds"); math.Abs(cost-0.5*used) > 1e-12 || cost <= 0 {
		t.Errorf("cost %v of %v GB-seconds", cost, used)
	}
	if got := d.run("plan", "digits", "--price", "0.0000167").want(t, ExitOK).stdout; !regexp.MustCompile(`(?m)^cost +about [0-9.]+ GB-seconds, [0-9]+\.[0-9]+ in money$`).MatchString(got) {
		t.Errorf("the table has no cost:\n%s", got)
	}
}

// TestHints: what to do next is said with the store that this command had.
func TestHints(t *testing.T) {
	d := newDesk(t)
	folder := filepath.Join(d.folder, "my store")
	store := "dir://" + folder
	quoted := "--store '" + store + "'"
	for line, says := range map[string]string{
		"models":                      "run: disdel train digits " + quoted,
		"jobs":                        "run: disdel train digits " + quoted,
		"jobs 20261123-130259-4f2a91": "see: disdel jobs " + quoted,
		"resume no-such":              "see: disdel jobs " + quoted,
		"resume":                      "see: disdel jobs " + quoted,
		"infer digits":                "run: disdel train digits " + quoted,
		"infer digits --model abc":    "see: disdel models " + quoted,
		"infer digits --model cnn":    "--model of infer wants the digest of a stored model or the start of it, see: disdel models " + quoted,
		"predict digits a.png":        "see: disdel models " + quoted,
	} {
		got := d.run(append(strings.Fields(line), "--store", store)...)
		if !strings.Contains(got.stderr, says) {
			t.Errorf("%s: does not say %q: %s", line, says, got.stderr)
		}
		if strings.HasPrefix(line, "infer") {
			if err := os.RemoveAll(folder); err != nil {
				t.Fatal(err)
			}
		}
	}
	for address, want := range map[string]string{
		"": "disdel models", "dir:///a/b": "disdel models --store dir:///a/b", "redis://h:1/2": "disdel models --store redis://h:1/2",
		"redis://ann:sesame@h": "disdel models --store redis://USER:PASSWORD@h:6379", "dir:///it's": `disdel models --store 'dir:///it'\''s'`,
	} {
		if got := (&options{store: address}).next("models"); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

// TestReading: commands that only read make no store, and leave one as it is.
func TestReading(t *testing.T) {
	d := emptyDesk(t)
	empty := filepath.Join(d.folder, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"models", "models --json", "jobs", "jobs --json", "jobs nobody", "resume nobody", "predict digits a.png", "models export digits a.safetensors",
		"__complete infer digits --model ", "__complete jobs ", "datasets", "version", "--version",
	} {
		for _, where := range []string{d.store(), empty} {
			args := strings.Split(line, " ")
			if !strings.HasPrefix(line, "__") && !strings.HasPrefix(line, "datasets") && !strings.Contains(line, "version") {
				args = append(args, "--store", "dir://"+where)
			}
			if strings.HasPrefix(line, "models export") {
				args[3] = filepath.Join(d.folder, "a.safetensors")
			}
			d.run(args...)
			if made, err := os.ReadDir(d.folder); err != nil || len(made) != 1 {
				t.Errorf("%s made %v, %v", line, made, err)
			}
			if made, err := os.ReadDir(empty); err != nil || len(made) != 0 {
				t.Errorf("%s made %v in an empty folder, %v", line, made, err)
			}
		}
	}
}

// TestQuiet: with --quiet nothing that goes well is on stderr.
func TestQuiet(t *testing.T) {
	d := newDesk(t)
	for _, line := range []string{
		"plan digits", "train digits --epochs 1", "infer digits", "infer digits --output " + filepath.Join(d.folder, "p.csv"),
		"datasets export digits " + filepath.Join(d.folder, "d.npz"),
	} {
		if got := d.run(append(strings.Fields(line), "--quiet")...).want(t, ExitOK); got.stderr != "" {
			t.Errorf("%s: stderr %q", line, got.stderr)
		}
	}
}

// TestVersionFlag: it says what the command says.
func TestVersionFlag(t *testing.T) {
	d := newDesk(t)
	if a, b := d.run("--version").want(t, ExitOK), d.run("version").want(t, ExitOK); a.stdout != b.stdout || a.stderr != "" {
		t.Errorf("--version prints %q, version %q", a.stdout, b.stdout)
	}
}

// TestModelFlags: what train's and infer's --model want cannot be mistaken.
func TestModelFlags(t *testing.T) {
	d := newDesk(t)
	for command, want := range map[string]string{
		"train": "what to train: cnn (the thesis's), cnn-deep, lenet5, mlp, resnet20, or a model file of your own, FILE.json",
		"infer": "which stored model to run: its digest or the start of it",
	} {
		if got := d.run(command, "--help").want(t, ExitOK).stdout; !strings.Contains(got, want) {
			t.Errorf("%s --help does not say %q", command, want)
		}
	}
}

// TestNarrow: on a terminal of 80 columns tables are no wider.
func TestNarrow(t *testing.T) {
	d := newDesk(t)
	for _, line := range []string{"datasets", "plan digits", "train digits --epochs 1", "infer digits", "models", "jobs"} {
		got := d.runWith(func(a *app) { a.columns = 80 }, strings.Fields(line)...).want(t, ExitOK)
		for row := range strings.Lines(got.stdout) {
			if utf8.RuneCountInString(row) > 81 && !strings.Contains(row, "https://") {
				t.Errorf("%s: %q", line, row)
			}
		}
	}
}

// TestCompletion: a shell is offered what there is.
func TestCompletion(t *testing.T) {
	d := newDesk(t)
	trained := d.run("train", "digits", "--epochs", "1", "--json").want(t, ExitOK).object(t)
	digest, id := field[string](t, trained, "model", "digest")[:12], field[string](t, trained, "job")
	for line, want := range map[string]string{
		"train ":                "mnist",
		"infer ":                "digits",
		"plan ":                 "cifar10",
		"datasets export ":      "digits",
		"train digits --model ": "cnn-deep",
		"plan digits --model ":  "mlp",
		"infer digits --model ": digest + "\tcnn on digits",
		"predict ":              "digits\tthe newest model of it",
		"models export ":        digest + "\tcnn on digits",
		"jobs ":                 id,
		"resume ":               id,
		"train --optimizer ":    "adamw",
		"train --enforcement ":  "cgroup-v2",
		"infer other --model ":  ":4",
		"jobs " + id + " ":      ":4",
		"infer digits --store redis://127.0.0.1:1 --model ": ":4",
	} {
		got := d.run(append([]string{"__complete"}, strings.Split(line, " ")...)...).want(t, ExitOK)
		if !slices.Contains(strings.Split(got.stdout, "\n"), want) {
			t.Errorf("%q is offered %q, want %q", line, got.stdout, want)
		}
		if want == ":4" && strings.Count(got.stdout, "\n") != 1 {
			t.Errorf("%q is offered %q, want nothing", line, got.stdout)
		}
	}
}
