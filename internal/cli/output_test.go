// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"disdel/internal/control"
	"disdel/internal/data/format"
	"disdel/internal/job"
	"disdel/internal/store"
	"disdel/internal/store/dir"
	"disdel/internal/store/mem"
)

// striped writes a data set whose test part has several shards: 64 x 64 pixels in
// colour, one bright third for each class.
func (d *desk) striped() string {
	d.t.Helper()
	random := rand.New(rand.NewPCG(3, 4))
	const side, size = 64, 64 * 64 * 3
	arrays := []format.NPZArray{}
	for _, part := range []struct {
		name    string
		records int
	}{{"train", 120}, {"test", 300}} {
		pixels, labels := make([]byte, part.records*size), make([]uint16, part.records)
		for i := range labels {
			labels[i] = uint16(random.IntN(3))
			for j := range size {
				v := random.IntN(120)
				if j*3/size == int(labels[i]) {
					v += 60
				}
				pixels[i*size+j] = byte(v)
			}
		}
		arrays = append(arrays,
			format.NPZArray{Name: "x_" + part.name, Dims: []int{part.records, side, side, 3}, Bytes: pixels},
			format.NPZArray{Name: "y_" + part.name, Dims: []int{part.records}, Labels: labels})
	}
	var file bytes.Buffer
	if err := format.WriteNPZ(&file, arrays...); err != nil {
		d.t.Fatal(err)
	}
	return d.write("striped.npz", file.Bytes())
}

// TestOutput: the file has one line for each test record, in their order, that
// agrees with what was counted and with predict; the same on one container and on
// three.
func TestOutput(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	set := d.striped()
	model := d.write("linear.json", []byte(`{"layers": [{"kind": "avgpool", "pool": 16}, {"kind": "flatten"}, {"kind": "dense"}]}`))
	d.exec("train", set, "--model", model, "--epochs", "3").want(t, ExitOK)
	path := filepath.Join(d.folder, "predictions.csv")
	var first []byte
	for _, containers := range []string{"1", "3"} {
		record := d.exec("infer", set, "--output", path, "--containers", containers, "--json").want(t, ExitOK).object(t)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = raw
		}
		if !bytes.Equal(raw, first) {
			t.Errorf("on %s containers the file is another one", containers)
		}
		pieces := 0
		for _, a := range field[[]any](t, record, "actions") {
			if field[string](t, a, "role") == "infer" {
				pieces++
			}
		}
		if fmt.Sprint(pieces) != containers && pieces < 2 {
			t.Errorf("%d pieces with --containers %s", pieces, containers)
		}
		rows, err := csv.NewReader(bytes.NewReader(raw)).ReadAll()
		if err != nil || len(rows) != 301 || strings.Join(rows[0], ",") != "index,true,predicted,probability" {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		confusion := [3][3]int{}
		for i, row := range rows[1:] {
			p, err := strconv.ParseFloat(row[3], 64)
			if err != nil || row[0] != strconv.Itoa(i) || p <= 0 || p > 1 {
				t.Fatalf("row %d is %v", i, row)
			}
			label, _ := strconv.Atoi(row[1])
			class, _ := strconv.Atoi(row[2])
			confusion[label][class]++
		}
		if got := fmt.Sprint(confusion); got != fmt.Sprint(field[[]any](t, record, "confusion")) {
			t.Errorf("the file says %s, the record %v", got, record["confusion"])
		}
	}
	predicted := field[[]any](t, d.exec("predict", "striped", set, "--json").want(t, ExitOK).object(t), "predictions")
	lines := strings.Split(string(first), "\n")
	for i, p := range predicted {
		best := field[[]any](t, p, "classes")[0]
		want := fmt.Sprintf(",%s,%.6f", field[string](t, best, "class"), field[float64](t, best, "probability"))
		if !strings.HasSuffix(lines[i+1], want) {
			t.Fatalf("record %d: infer wrote %q, predict says %q", i, lines[i+1], want)
		}
	}
	if left := d.scratch(); len(left) > 0 {
		t.Errorf("left in the store: %v", left)
	}
	if left, err := filepath.Glob(filepath.Join(d.folder, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left beside the file: %v, %v", left, err)
	}
}

// TestOutput_Refused: where the file cannot be written nothing is run.
func TestOutput_Refused(t *testing.T) {
	d := newDesk(t)
	if err := os.Mkdir(filepath.Join(d.folder, "dir.csv"), 0o700); err != nil {
		t.Fatal(err)
	}
	for output, c := range map[string]struct {
		code int
		says string
	}{
		"predictions.txt":                        {ExitUsage, "want a name that ends in .csv"},
		filepath.Join(d.folder, "nope", "p.csv"): {ExitFailed, "no such file or directory; name a file in a folder that is there"},
		filepath.Join(d.folder, "dir.csv"):       {ExitFailed, "no regular file; name another one"},
		"/proc/p.csv":                            {ExitFailed, "/proc/"},
	} {
		d.run("infer", "digits", "--output", output).want(t, c.code, "--output", c.says)
	}
	if _, err := os.Stat(d.store()); !os.IsNotExist(err) {
		t.Errorf("the store was made: %v", err)
	}
}

// TestExporter: what is not what workers stored is an error, and no file.
func TestExporter(t *testing.T) {
	one := job.AppendPrediction(nil, job.Prediction{Label: 1, Class: 0, Probability: 0.75})
	for name, c := range map[string]struct {
		objects [][]byte
		says    string
	}{
		"good":    {[][]byte{one, one}, ""},
		"fewer":   {[][]byte{one}, "1 predictions for 2 test records"},
		"more":    {[][]byte{append(one[:8:8], one...), one}, "3 predictions for 2"},
		"part":    {[][]byte{one, append(one[:8:8], one[:7]...)}, "part of a prediction"},
		"classes": {[][]byte{one, job.AppendPrediction(nil, job.Prediction{Class: 2})}, "classes 0 and 2 of 2"},
		"missing": {[][]byte{one, nil}, "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			var keys []string
			for i, raw := range c.objects {
				keys = append(keys, job.Keys{Job: "j"}.Predictions(i))
				if raw == nil {
					continue
				}
				if _, err := s.PutIfAbsent(t.Context(), keys[i], func(w io.Writer) error { _, err := w.Write(raw); return err }); err != nil {
					t.Fatal(err)
				}
			}
			folder := t.TempDir()
			path := filepath.Join(folder, "p.csv")
			created := control.Created{Spec: job.Spec{Output: path}, Dataset: job.Dataset{Test: 2, Classes: 2, ClassNames: []string{"a, b", "c"}}}
			err := exporter(s)(t.Context(), created, keys)
			raw, _ := os.ReadFile(path)
			entries, readErr := os.ReadDir(folder)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if c.says == "" {
				const want = "index,true,predicted,probability\n0,c,\"a, b\",0.750000\n1,c,\"a, b\",0.750000\n"
				if err != nil || string(raw) != want || len(entries) != 1 {
					t.Errorf("%v; wrote %q among %v", err, raw, entries)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.says) || len(entries) != 0 {
				t.Errorf("%v; want %q; left %v", err, c.says, entries)
			}
		})
	}
}

// TestOutput_Resumed: the path of the predictions comes from a log that others may
// have written, so a resumed job replaces no file and takes no path but a table's.
func TestOutput_Resumed(t *testing.T) {
	d := newDesk(t)
	d.run("train", "digits", "--epochs", "1").want(t, ExitOK)
	path := filepath.Join(d.folder, "p.csv")
	id := field[string](t, d.run("infer", "digits", "--output", path, "--json").want(t, ExitOK).object(t), "job")
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := dir.Open(t.Context(), d.store())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	state, err := control.Load(t.Context(), s, job.ID(id))
	if err != nil {
		t.Fatal(err)
	}
	// begin writes the log of a job whose controller died at once.
	begin := func(id, output string) {
		t.Helper()
		created := *state.Created
		created.Job, created.Spec.Output = job.ID(id), output
		raw, err := json.Marshal([]control.Event{{Created: &created}})
		if err == nil {
			_, err = s.Append(t.Context(), job.Keys{Job: created.Job}.Log(), store.Head{}, raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	mine := d.write("mine.csv", []byte("not to be lost"))
	begin("forged", mine)
	d.run("resume", "forged").want(t, ExitFailed, mine, "resume replaces no file", "remove it and resume again")
	if raw, err := os.ReadFile(mine); err != nil || string(raw) != "not to be lost" {
		t.Errorf("the file is %q, %v", raw, err)
	}
	if err := os.Remove(mine); err != nil {
		t.Fatal(err)
	}
	d.run("resume", "forged").want(t, ExitOK)
	if raw, err := os.ReadFile(mine); err != nil || !bytes.Equal(raw, first) {
		t.Errorf("resumed: %d bytes, %v; want the %d of the whole job", len(raw), err, len(first))
	}
	for id, output := range map[string]string{"relative": "p.csv", "profile": filepath.Join(d.folder, ".profile")} {
		begin(id, output)
		d.run("resume", id).want(t, ExitFailed, output, "want an absolute path that ends in .csv")
		if _, err := os.Stat(filepath.Join(d.folder, ".profile")); !os.IsNotExist(err) {
			t.Errorf("%s: %v", id, err)
		}
	}
}
