// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"disdel/internal/job"
)

// narrowTables are tables that need more than 80 columns.
func narrowTables() map[string]func(w io.Writer) error {
	numerics, resources := plans()
	priced, cost := succeeded(), 0.0000123
	priced.Metrics.Cost = &cost
	wide := make([][]int, 30)
	names := make([]string, len(wide))
	for i := range wide {
		wide[i] = make([]int, len(wide))
		wide[i][i], wide[i][(i+1)%len(wide)] = 100+i, i
		names[i] = strings.Repeat("x", 1+i%7)
	}
	return map[string]func(w io.Writer) error{
		"narrow-job":  func(w io.Writer) error { return Job(w, priced) },
		"narrow-long": func(w io.Writer) error { return Job(w, longName()) },
		"narrow-plan": func(w io.Writer) error { return Plan(w, &numerics, resources, &cost) },
		"narrow-jobs": func(w io.Writer) error { return Jobs(w, []job.Record{succeeded(), failed(), longName()}) },
		"narrow-models": func(w io.Writer) error {
			return Models(w, []ModelRow{{Digest: strings.Repeat("ab", 32), Name: "small-norm", Dataset: "binary_alpha_digits", Parameters: 1234567, Accuracy: 0.5, Epochs: 5, Replicas: 4}})
		},
		"narrow-datasets": func(w io.Writer) error {
			return Datasets(w, []DatasetRow{
				{Name: "digits", Title: "Optical recognition of handwritten digits", Shape: "8x8x1", Classes: 10, Train: 1438, Test: 359, Licence: "CC-BY-4.0"},
				{Name: "binary_alpha_digits", Title: "Binary Alphadigits", Shape: "20x16x1", Classes: 36, Train: 1128, Test: 276, Path: "/home/somebody/data/binary_alpha_digits"},
			})
		},
		"narrow-checks": func(w io.Writer) error {
			return Checks(w, []CheckRow{{What: "takes 58.7 MB more, in all 69.3 MB of 128 MB", Want: "success", Got: "success", Passed: true, Detail: "peak 69 MB of 128 MB (cgroup v1), started in 4.8ms, ran 518ms"}})
		},
		"narrow-confusion": func(w io.Writer) error { return Confusion(w, wide, names) },
	}
}

// TestPage: on a terminal of 80 columns no line is longer, and nothing is lost.
func TestPage(t *testing.T) {
	for name, write := range narrowTables() {
		var got, free bytes.Buffer
		if err := write(Page{&got, 80}); err != nil {
			t.Fatal(err)
		}
		if err := write(Page{&free, 0}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(got.String()) {
			word := slices.MaxFunc(strings.Fields(line+" x"), func(a, b string) int { return len(a) - len(b) })
			if utf8.RuneCountInString(line) > 81 && len(word) < 60 || strings.HasSuffix(line, " \n") {
				t.Errorf("%s: the line %q", name, line)
			}
		}
		if name != "narrow-confusion" {
			have := strings.FieldsFunc(strings.ToLower(got.String()), func(r rune) bool { return strings.ContainsRune(" ;\n", r) })
			for word := range strings.FieldsFuncSeq(strings.ToLower(free.String()), func(r rune) bool { return strings.ContainsRune(" ;\n", r) }) {
				if word != "-" && !slices.Contains(have, word) {
					t.Errorf("%s: %q is lost", name, word)
				}
			}
		}
		path := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(path, got.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s differs (see -update); got:\n%s", path, &got)
		}
		if err := write(Page{&full{left: got.Len() / 2}, 80}); err == nil {
			t.Errorf("%s: no error although the writer took only half of it", name)
		}
	}
}

// TestFold: however wide, folding loses no word and no line has room for the next
// one.
func TestFold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.StringMatching(`[a-zé]{1,9}`), 1, 30).Draw(t, "words")
		width := rapid.IntRange(-3, 40).Draw(t, "width")
		lines := fold(strings.Join(words, " "), width)
		if got := strings.Join(lines, " "); got != strings.Join(words, " ") {
			t.Fatalf("%q became %q", words, lines)
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > width && strings.Contains(line, " ") {
				t.Fatalf("%q is wider than %d", line, width)
			}
		}
	})
}

// TestRecord_NothingUnknown: what was never measured is not in the JSON as a zero.
func TestRecord_NothingUnknown(t *testing.T) {
	cancelled := failed()
	cancelled.Status = job.Cancelled
	var out bytes.Buffer
	if err := JSON(&out, cancelled); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"accuracy", "loss", "records", "confusion", "replicas", "local_batch", "rounds", "parameters", "digest", "cost"} {
		if strings.Contains(out.String(), `"`+name+`"`) {
			t.Errorf("a job that was cancelled before it began has %s:\n%s", name, &out)
		}
	}
	if !strings.Contains(out.String(), "<") && strings.Contains(cancelled.Error, "<") {
		t.Error("characters are escaped as for the web")
	}
	hopeless := succeeded()
	hopeless.Accuracy, hopeless.Loss = 0, 0
	out.Reset()
	if err := JSON(&out, hopeless); err != nil || !strings.Contains(out.String(), `"accuracy": 0,`) || !strings.Contains(out.String(), `"loss": 0,`) {
		t.Errorf("a measured zero is missing: %v\n%s", err, &out)
	}
}
