// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"disdel/internal/bench"
)

func TestBenchTrain(t *testing.T) {
	d := newDesk(t)
	raw := filepath.Join(d.folder, "raw.jsonl")
	o := d.exec("bench", "train", "digits", "--case", "workers=2", "--case", "workers=2 containers=1", "--seeds", "2", "--raw", raw,
		"--infer", "--json", "--", "--epochs", "1", "--rounds", "2").want(t, ExitOK, "run 4 of 4: digits --seed=2 --workers=2 --containers=1")
	var answer struct {
		Machine bench.Machine
		Rows    []bench.Row
	}
	if err := json.Unmarshal([]byte(o.stdout), &answer); err != nil {
		t.Fatalf("%v: %s", err, o.stdout)
	}
	if len(answer.Rows) != 2 || answer.Machine.Processors < 1 {
		t.Fatalf("answer: %s", o.stdout)
	}
	for i, row := range answer.Rows {
		if row.Runs != 2 || row.FailedRuns != 0 || row.Replicas != 2 || row.Rounds != 2 || row.Containers != 2-i || row.Seconds.Min <= 0 || row.Peak <= 0 || row.InferSeconds.Min <= 0 {
			t.Errorf("row %d: %+v", i, row)
		}
	}
	// The same model whatever the number of containers.
	if answer.Rows[0].Accuracy != answer.Rows[1].Accuracy || answer.Rows[1].Gain != 0 {
		t.Errorf("accuracies: %+v and %+v", answer.Rows[0].Accuracy, answer.Rows[1].Accuracy)
	}
	file, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	lines := 0
	for scanner := bufio.NewScanner(file); scanner.Scan(); lines++ {
		var s bench.Sample
		if err := json.Unmarshal(scanner.Bytes(), &s); err != nil || s.Record.Accuracy == 0 || s.Wall <= 0 || s.Infer == nil || s.Infer.Model.Digest != s.Record.Model.Digest {
			t.Errorf("line %d: %v, %+v", lines+1, err, s)
		}
	}
	if lines != 4 {
		t.Errorf("%d raw lines; want 4", lines)
	}
	if _, err := os.Stat(d.store()); !os.IsNotExist(err) {
		t.Errorf("the user's store was touched: %v", err)
	}
}

func TestBenchUsage(t *testing.T) {
	d := newDesk(t)
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"bench", "train"}, "the name of one data set"},
		{[]string{"bench", "train", "--", "digits"}, "the name of one data set"},
		{[]string{"bench", "train", "digits", "--vary", "batch"}, `"batch": want FLAG and its values`},
		{[]string{"bench", "train", "digits", "--case", "batch"}, `setting "batch": want FLAG=VALUE`},
		{[]string{"bench", "train", "digits", "--seeds", "0"}, "seeds"},
		{[]string{"bench", "train", "digits", "--case", "worker=1"}, "unknown flag: --worker"},
		{[]string{"bench", "train", "nothing"}, "nothing"},
		{[]string{"bench", "trains"}, "trains"},
		{[]string{"bench", "train", "digits", "--infer", "--", "--job", d.write("job.json", []byte(`{"epochs": 1}`))}, "no --job file"},
	} {
		if o := d.exec(c.args...).want(t, ExitUsage, c.says); o.stdout != "" {
			t.Errorf("%q printed %s", c.args, o.stdout)
		}
	}
	d.exec("bench", "train", "digits", "--quiet", "--", "--timeout", "0.000001").want(t, ExitFailed, "a timeout of 1µs is less than", "1 of 1 runs failed")
}

// lostFile is a file whose last bytes never reach the disk.
type lostFile struct{ bytes.Buffer }

var errLost = errors.New("no space left on device")

func (*lostFile) Close() error { return errLost }

// TestBenchTrain_RawIsLost: a file that cannot be closed is an error of the command.
func TestBenchTrain_RawIsLost(t *testing.T) {
	a := &app{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}
	for name, c := range map[string]struct {
		raw  io.WriteCloser
		want error
	}{"none": {nil, nil}, "lost": {&lostFile{}, errLost}} {
		if err := a.benchTrain(t.Context(), nil, benchOptions{seeds: 1, raw: c.raw, json: true, quiet: true}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
