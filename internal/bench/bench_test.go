// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"disdel/internal/job"
)

func TestMatrix(t *testing.T) {
	axis, err := ParseAxis("--batch=32,64")
	if err != nil {
		t.Fatal(err)
	}
	once, err := ParseSettings(" workers=4  --rounds=1 ")
	if err != nil {
		t.Fatal(err)
	}
	all, err := Matrix([]string{"mnist", "./own"}, []Axis{axis}, [][]Setting{nil, once}, 2)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var bases []int
	for _, c := range all {
		got = append(got, strings.Join(c.Args(7), " "))
		bases = append(bases, c.Base)
	}
	want := []string{
		"mnist --seed=7 --batch=32", "mnist --seed=7 --batch=32 --workers=4 --rounds=1",
		"mnist --seed=7 --batch=64", "mnist --seed=7 --batch=64 --workers=4 --rounds=1",
		"./own --seed=7 --batch=32", "./own --seed=7 --batch=32 --workers=4 --rounds=1",
		"./own --seed=7 --batch=64", "./own --seed=7 --batch=64 --workers=4 --rounds=1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if want := []int{0, 0, 2, 2, 4, 4, 6, 6}; !slices.Equal(bases, want) {
		t.Errorf("compared with %v; want %v", bases, want)
	}
}

func TestMatrixRefuses(t *testing.T) {
	many := Axis{"batch", make([]string, 200)}
	for name, make := range map[string]func() error{
		"no data set": func() error { _, err := Matrix(nil, nil, nil, 1); return err },
		"no seed":     func() error { _, err := Matrix([]string{"a"}, nil, nil, 0); return err },
		"too many runs": func() error {
			_, err := Matrix([]string{"a"}, []Axis{many, many, many, many, many, many, many, many, many}, nil, 1)
			return err
		},
		"many seeds":  func() error { _, err := Matrix([]string{"a"}, nil, nil, MaxRuns+1); return err },
		"no value":    func() error { _, err := ParseSettings("workers="); return err },
		"no flag":     func() error { _, err := ParseSettings("--=4"); return err },
		"axis":        func() error { _, err := ParseAxis("batch"); return err },
		"empty value": func() error { _, err := ParseAxis("batch=1,,2"); return err },
	} {
		if err := make(); !errors.Is(err, ErrMatrix) {
			t.Errorf("%s: got %v, want %v", name, err, ErrMatrix)
		}
	}
}

func TestRunTakesTurns(t *testing.T) {
	all, err := Matrix([]string{"a", "b"}, nil, nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	kept := 0
	samples, err := Run(t.Context(), all, 2, func(_ context.Context, args []string) (Sample, error) {
		order = append(order, strings.Join(args, " "))
		return Sample{Wall: time.Second}, nil
	}, func(Sample) error { kept++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a --seed=1", "b --seed=1", "a --seed=2", "b --seed=2"}; !slices.Equal(order, want) {
		t.Errorf("ran %q; want %q", order, want)
	}
	if len(samples) != 4 || kept != 4 || samples[3].Configuration != 1 || samples[3].Seed != 2 {
		t.Errorf("samples %+v, %d kept", samples, kept)
	}
	broken := errors.New("broken")
	samples, err = Run(t.Context(), all, 2, func(_ context.Context, args []string) (Sample, error) {
		if args[0] == "b" {
			return Sample{}, broken
		}
		return Sample{}, nil
	}, func(Sample) error { return nil })
	if !errors.Is(err, broken) || len(samples) != 1 {
		t.Errorf("after an error: %d samples, %v", len(samples), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Run(ctx, all, 2, func(context.Context, []string) (Sample, error) { cancel(); return Sample{}, nil }, func(Sample) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after a cancellation: %v", err)
	}
}

func TestSummarise(t *testing.T) {
	all, err := Matrix([]string{"a"}, nil, [][]Setting{nil, {{"workers", "4"}}}, 2)
	if err != nil {
		t.Fatal(err)
	}
	sample := func(configuration int, accuracy float64, wall time.Duration, actions ...job.RecordAction) Sample {
		return Sample{Configuration: configuration, Wall: wall, Record: job.Record{
			Status: job.Succeeded, Accuracy: accuracy, Actions: actions, Metrics: job.Metrics{Containers: 3, InitSeconds: 0.5},
		}}
	}
	call := func(predicted, peak job.Bytes, outcome string) job.RecordAction {
		return job.RecordAction{MemoryLimit: 128, Predicted: predicted, Peak: peak, Outcome: outcome}
	}
	failed := sample(1, 0.1, time.Minute, call(1000, 1, "success"))
	failed.Record.Status, failed.Record.Metrics.FailedContainers = job.Failed, 2
	rows := Summarise(all, []Sample{
		sample(0, 0.5, 4*time.Second, call(0, 70, "success"), call(110, 100, "success"), call(10, 90, "out_of_memory")),
		sample(1, 0.75, 3*time.Second, call(99, 100, "success")),
		sample(0, 0.25, 2*time.Second, call(60, 40, "success")),
		failed,
	})
	if rows[0].Outside != 0 || rows[1].Outside != 1 {
		t.Errorf("outside: %d and %d calls; want 0 and the one that took more than was predicted", rows[0].Outside, rows[1].Outside)
	}
	base, other := rows[0], rows[1]
	if base.MeanAccuracy != 0.375 || base.Accuracy != (Spread{0.25, 0.375, 0.5}) || base.Seconds != (Spread{2, 3, 4}) || base.Ratio != 1 || base.Gain != 0 {
		t.Errorf("base: %+v", base)
	}
	if base.LeastMargin != 10 || base.MostMargin != 20 || base.MostShare != 0.5 || base.Peak != 100 || base.Limit != 128 {
		t.Errorf("memory of the base: %+v", base)
	}
	if other.Runs != 2 || other.FailedRuns != 1 || other.Failed != 2 || other.Gain != 0.375 || other.Ratio != 1.5 || other.LeastMargin != -1 {
		t.Errorf("other: %+v", other)
	}
}

// TestSummarise_Infer: the jobs that run a model again count.
func TestSummarise_Infer(t *testing.T) {
	all, err := Matrix([]string{"a"}, nil, nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	record := func(status job.Status, failed int, predicted, peak, limit job.Bytes) job.Record {
		return job.Record{
			Status: status, Metrics: job.Metrics{FailedContainers: failed},
			Actions: []job.RecordAction{{Predicted: predicted, Peak: peak, MemoryLimit: limit, Outcome: "success"}},
		}
	}
	more, lost := record(job.Succeeded, 1, 23*job.MB, 20*job.MB, 128*job.MB), record(job.Failed, 2, 0, 0, 0)
	rows := Summarise(all, []Sample{
		{Record: record(job.Succeeded, 0, 30*job.MB, 26*job.MB, 25*job.MB), Wall: time.Second, Infer: &more, InferWall: 2 * time.Second},
		{Record: record(job.Succeeded, 0, 9, 9, 9), Wall: time.Second, Infer: &lost, InferWall: time.Second},
	})
	r := rows[0]
	if r.Runs != 2 || r.FailedRuns != 1 || r.Failed != 3 || r.InferSeconds != (Spread{2, 2, 2}) {
		t.Errorf("got %+v", r)
	}
	if r.Outside != 1 || r.MostMargin != 4*job.MB {
		t.Errorf("%d calls outside, at most %v; want the one above its limit (both margins are within their bounds), and 4 MB", r.Outside, r.MostMargin)
	}
}

func TestHidePasswords(t *testing.T) {
	for text, want := range map[string]string{
		"--store=redis://me:s3:c@host:6379/1 --batch=32": "--store=redis://me:...@host:6379/1 --batch=32",
		"redis://:x@host":    "redis://:...@host",
		"dir:///a/b redis:h": "dir:///a/b redis:h",
		"redis://host:6379":  "redis://host:6379",
	} {
		if got := HidePasswords(text); got != want {
			t.Errorf("%q shows as %q; want %q", text, got, want)
		}
	}
}
