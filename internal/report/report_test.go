// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"disdel/internal/job"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// succeeded is a training job like those of the digits, with one of everything.
func succeeded() job.Record {
	return job.Record{
		Job: "20261123-130259-4f2a91", Kind: job.Train, Status: job.Succeeded, Dataset: "digits",
		Model:  job.RecordModel{Name: "cnn", Parameters: 1234567, Digest: "337dd86ac88c895ab999757f55a35c625bdaa57455a7e548d8f7ac8e84f90990"},
		Epochs: 1, Batch: 64, LocalBatch: 4, Replicas: 2, Rounds: 45, Seed: 1, KernelSet: "generic-1",
		Platform: "process", Enforcement: "cgroup v2", Accuracy: 0.97771, Loss: 0.09934, Records: 359,
		Confusion: [][]int{{35, 1}, {0, 323}},
		Metrics: job.Metrics{
			Containers: 3, ColdStarts: 2, Warmed: 1, MemoryLimit: 384 * job.MB, MemoryPeak: 28 * job.MB, StorePeak: 1500 * job.KB, ControllerPeak: 13 * job.MB,
			GBSeconds: 0.3871, DurationSeconds: 3.164, InitSeconds: 0.0331, FailedContainers: 1, Handovers: 2, FailureRate: 1.0 / 3,
		},
		Actions: []job.RecordAction{
			{Name: "m128", Role: job.RoleTrain, Container: "c1", MemoryLimit: 128 * job.MB, Predicted: 10 * job.MB, Peak: 9 * job.MB, DurationSeconds: 1.25, Cold: true, Outcome: "success"},
			{Name: "m128", Role: job.RoleTrain, Container: "c2", MemoryLimit: 128 * job.MB, Predicted: 10 * job.MB, Peak: 128 * job.MB, DurationSeconds: 0.5, Cold: true, Outcome: "out_of_memory"},
			{Name: "m192", Role: job.RoleTrain, Container: "c3", MemoryLimit: 192 * job.MB, Predicted: 11 * job.MB, Peak: 10 * job.MB, DurationSeconds: 0.5, Outcome: "need_time"},
			{Name: "m192", Role: job.RoleAverage, MemoryLimit: 192 * job.MB, Outcome: "running"},
			{Name: "m192", Role: job.RoleEvaluate, Container: "c3", MemoryLimit: 192 * job.MB, Predicted: 9 * job.MB, Peak: 8 * job.MB, Outcome: "success"},
		},
	}
}

// failed is a job of which nothing ran, with an error of two lines.
func failed() job.Record {
	return job.Record{
		Job: "20261123-130300-000000", Kind: job.Train, Status: job.Failed, Dataset: "digits",
		Error: errors.Join(errors.New("infeasible: 64 MB is too little"), errors.New("and\tthen \x1b[31msome")).Error(),
		Model: job.RecordModel{Name: "cnn"}, Epochs: 5, Batch: 64, Actions: []job.RecordAction{},
	}
}

func longName() job.Record {
	r := succeeded()
	r.Dataset, r.Model.Name = strings.Repeat("very-long-name-", 10), strings.Repeat("ein-sehr-großes-modell-", 5)
	r.Kind, r.Error = job.Infer, strings.Repeat("a long story ", 40)
	r.Replicas = 0
	return r
}

// bruteForce is a job that says how it was divided, and what that may cost.
func bruteForce() job.Record {
	r := succeeded()
	r.Strategy, r.Replicas = job.BruteForce, 1
	r.AccuracyCost, r.AccuracyNote = 0.0225, "about 2.2 points less than one worker would reach; measured."
	return r
}

func plans() (job.Numerics, job.Resources) {
	e := job.Estimate{Fit: 400 * job.KB, Package: 9 * job.MB, Data: 100 * job.KB, Safety: 577 * job.KB}
	n := job.Numerics{
		Version: 1, KernelSet: "generic-1", Seed: 1, Epochs: 5, Batch: 64, LocalBatch: 16, Replicas: 4,
		Dataset:       job.Dataset{Name: "digits", Train: 1438, Test: 359, Height: 8, Width: 8, Channels: 1, Classes: 10},
		StepsPerEpoch: 23, Steps: 115, RoundSteps: 20,
		Local: job.Optimizer{Kind: "adam", LearningRate: 0.001}, Outer: job.Nesterov{LearningRate: 0.7, Momentum: 0.9},
	}
	r := job.Resources{
		Memory: 128 * job.MB, Timeout: time.Minute, Containers: 4, Budget: 30 * time.Second, Seconds: 1.234,
		Roles:       map[job.Role]job.Estimate{job.RoleTrain: e, job.RoleEvaluate: {Package: 9 * job.MB, Model: 1}, job.RoleProbe: {}},
		Explanation: []string{"memory: the platform's smallest action has 128 MB.", "containers: 4 at once."},
	}
	return n, r
}

func TestGolden(t *testing.T) {
	numerics, resources := plans()
	thesis := numerics
	thesis.Replicas, thesis.RoundSteps, thesis.Outer = 1, 115, job.Nesterov{LearningRate: 1}
	tuned := numerics
	tuned.Local = job.Optimizer{
		Kind: "sgd", LearningRate: 0.1, Momentum: 0.9, Schedule: "cosine", ScheduleSteps: 115, WarmupSteps: 12, L2: 1e-4, ClipNorm: 5,
	}
	tuned.LabelSmoothing, tuned.Flips, tuned.Shifts = 0.1, true, 4
	single := resources
	single.Budget, single.GBSeconds, single.AccuracyNote = 0, 1.5, "about 2.2 points less than one worker would reach; measured."
	created := time.Date(2026, 11, 23, 13, 2, 59, 0, time.UTC)
	for name, write := range map[string]func(io.Writer) error{
		"job-succeeded": func(w io.Writer) error { return Job(w, succeeded()) },
		"job-failed":    func(w io.Writer) error { return Job(w, failed()) },
		"job-brute":     func(w io.Writer) error { return Job(w, bruteForce()) },
		"plan-single":   func(w io.Writer) error { return Plan(w, &thesis, single, nil) },
		"job-long":      func(w io.Writer) error { return Job(w, longName()) },
		"job-zero":      func(w io.Writer) error { return Job(w, job.Record{}) },
		"job-json":      func(w io.Writer) error { return JSON(w, succeeded()) },
		"plan-train":    func(w io.Writer) error { return Plan(w, &numerics, resources, nil) },
		"plan-thesis":   func(w io.Writer) error { return Plan(w, &thesis, resources, nil) },
		"plan-tuned":    func(w io.Writer) error { return Plan(w, &tuned, resources, nil) },
		"plan-infer":    func(w io.Writer) error { return Plan(w, nil, resources, nil) },
		"plan-zero":     func(w io.Writer) error { return Plan(w, &job.Numerics{RoundSteps: 1}, job.Resources{}, nil) },
		"models": func(w io.Writer) error {
			return Models(w, []ModelRow{
				{Digest: succeeded().Model.Digest, Name: "cnn", Dataset: "digits", Parameters: 19466, Accuracy: 0.97771, Epochs: 5, Replicas: 2, Job: "j", Created: created},
				{Digest: "ab", Name: strings.Repeat("long", 10), Dataset: "x\ny", Parameters: 999, Accuracy: 1, Created: created.Add(time.Hour)},
				{},
			})
		},
		"models-none": func(w io.Writer) error { return Models(w, nil) },
		"jobs":        func(w io.Writer) error { return Jobs(w, []job.Record{succeeded(), failed(), longName(), {}}) },
		"jobs-none":   func(w io.Writer) error { return Jobs(w, nil) },
		"datasets": func(w io.Writer) error {
			return Datasets(w, []DatasetRow{
				{Name: "digits", Title: "Handwritten Digits", Shape: "8x8x1", Classes: 10, Train: 1438, Test: 359, Licence: "CC-BY-4.0", Attribution: "E. Alpaydin", Source: "https://example.org"},
				{Name: "mnist", Title: "", Shape: "28x28x1", Classes: 10, Train: 60000, Test: 10000, DownloadBytes: 11594722},
				{Name: "cifar10", Title: "Photographs", Shape: "32x32x3", Classes: 10, Train: 50000, Test: 10000, Path: "/data/cifar10"},
			})
		},
		"checks": func(w io.Writer) error {
			return Checks(w, []CheckRow{
				{What: "a worker at rest", Want: "success", Got: "success", Passed: true, Detail: "peak 9 MB of 128 MB"},
				{What: "takes 256 MB of 128 MB", Want: "out_of_memory", Got: "success", Detail: ""},
			})
		},
		"confusion": func(w io.Writer) error {
			return Confusion(w, [][]int{{35, 0, 1}, {0, 10000, 0}, {0, 0, 0}}, []string{"cat", "a rather long dog"})
		},
		"confusion-none": func(w io.Writer) error { return Confusion(w, nil, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := write(&got); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(got.String()) {
				text := strings.TrimSuffix(line, "\n")
				if strings.ContainsFunc(text, unicode.IsControl) || strings.HasSuffix(text, " ") {
					t.Errorf("line %q has control characters or ends in a space", text)
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
			if err := write(&full{left: got.Len() / 2}); got.Len() > 0 && err == nil {
				t.Error("no error although the writer took only half of it")
			}
		})
	}
}

// full takes so many bytes and no more.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.left {
		return f.left, errors.New("disk full")
	}
	f.left -= len(p)
	return len(p), nil
}

// TestJSON_IsReadBack: nothing that is reported is lost on the way.
func TestJSON_IsReadBack(t *testing.T) {
	for _, want := range []job.Record{succeeded(), failed(), longName(), {}} {
		var first, second bytes.Buffer
		if err := JSON(&first, want); err != nil {
			t.Fatal(err)
		}
		var got job.Record
		if err := json.Unmarshal(first.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if err := JSON(&second, got); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("%s became %s (%v)", &first, &second, err)
		}
	}
	if err := JSON(io.Discard, func() {}); err == nil {
		t.Error("a function was written as JSON")
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int]string{
		0: "0", 7: "7", 999: "999", 1000: "1,000", 12345: "12,345", 123456: "123,456", 1234567: "1,234,567",
		-1: "-1", -999: "-999", -1000: "-1,000", -123456: "-123,456",
	} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) is %q; want %q", n, got, want)
		}
	}
	for _, c := range []struct {
		n          int
		noun, want string
	}{{0, "round", "0 rounds"}, {1, "round", "1 round"}, {2, "round", "2 rounds"}, {1, "class", "1 class"}, {10, "class", "10 classes"}} {
		if got := count(c.n, c.noun); got != c.want {
			t.Errorf("count(%d, %s) is %q; want %q", c.n, c.noun, got, c.want)
		}
	}
	if got := shorten(strings.Repeat("ä", errorRunes)); len([]rune(got)) != errorRunes || strings.HasSuffix(got, "...") {
		t.Errorf("an error that fits became %q", got)
	}
	if got := shorten(strings.Repeat("ä", errorRunes+1)); len([]rune(got)) != errorRunes || !strings.HasSuffix(got, "...") {
		t.Errorf("an error that is too long became %q", got)
	}
}

// A job that averages gradients is not said to average weights.
func TestSyncStep(t *testing.T) {
	n := &job.Numerics{
		Sync: job.SyncStep, Replicas: 3, Batch: 64, LocalBatch: 22, Epochs: 2, StepsPerEpoch: 5, Steps: 10, RoundSteps: 1,
		Local: job.Optimizer{Kind: "adam", LearningRate: 0.001},
	}
	var plan, record strings.Builder
	if err := Plan(&plan, n, job.Resources{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := Job(&record, job.Record{Sync: job.SyncStep, Epochs: 2, Replicas: 3, Batch: 64, Rounds: 10}); err != nil {
		t.Fatal(err)
	}
	for text, wants := range map[string][]string{
		plan.String():   {"10 (2 epochs of 5), gradients averaged in each: 10 rounds", "Adam, learning rate 0.001, on the averaged gradients"},
		record.String(): {"2 epochs, 3 replicas, gradients of batches of 64 averaged in 10 steps"},
	} {
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in\n%s", want, text)
			}
		}
		if strings.Contains(text, "Nesterov") || strings.Contains(text, "moments averaged") {
			t.Errorf("weights are said to be averaged:\n%s", text)
		}
	}
}

func TestMoney(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0.00", 12345.678: "12345.68", 12.345678: "12.35", 1: "1.000", 0.0316: "0.03160", 1.23e-5: "0.00001230", 1e-30: "0.00000000000000000000",
	} {
		if got := money(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}
