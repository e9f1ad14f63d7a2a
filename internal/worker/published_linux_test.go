// SPDX-License-Identifier: Apache-2.0

//go:build linux

package worker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"disdel/internal/control"
	"disdel/internal/data"
	"disdel/internal/job"
	"disdel/internal/platform/pool"
	"disdel/internal/platform/pool/process"
	"disdel/internal/store/dir"
	"disdel/internal/worker"
)

// How many records of either part are left: with the model whose steps take longest,
// and with all where not all pairs run, so many that 16 replicas have a window's each.
const (
	deepRecords = 2_000
	someRecords = 22_000
)

// TestMemory_PublishedDataSets is the promise of the planner for every data set,
// model and batch size, one worker, some and many: no call takes more than was
// predicted for it, nor more than its limit, nor much less. Where 16 meet they do
// so 60 times and more, for what builds up from round to round. It runs where the
// variable DISDEL_E2E names "data": for some records of each data set, and each model,
// one batch size and number of workers, so that each pair comes twice. If it names
// "memory" too, all pairs run for all, which takes a quarter of an hour on two cores.
func TestMemory_PublishedDataSets(t *testing.T) {
	parts := strings.Split(os.Getenv("DISDEL_E2E"), ",")
	if !slices.Contains(parts, "data") {
		return
	}
	all := slices.Contains(parts, "memory")
	folder := os.Getenv("DISDEL_DATA")
	if folder == "" {
		t.Fatal("DISDEL_E2E names data, so DISDEL_DATA must name the folder of the published files")
	}
	program := buildWorker(t)
	for n, name := range []string{"digits", "binary_alpha_digits", "mnist", "fashion_mnist", "cifar10", "cifar100"} {
		set, err := data.Open(t.Context(), name, data.Options{DataDir: folder})
		if err != nil {
			t.Fatal(err)
		}
		for m, model := range []string{"mlp", "cnn", "cnn-deep"} {
			t.Run(name+"/"+model, func(t *testing.T) {
				of := *set
				if model == "cnn-deep" {
					shorten(&of, deepRecords)
				} else if !all {
					shorten(&of, someRecords)
				}
				st, err := dir.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
				if err != nil {
					t.Fatal(err)
				}
				defer st.Close()
				d := cut(t, st, &of)
				for i, batch := range []int{32, 64, 128} {
					for j, replicas := range []int{1, 4, 16} {
						if !all && (i != (n+m)%3 || j != (n+2*m)%3) {
							continue
						}
						spec := job.Spec{Kind: job.Train, Dataset: name, Seed: 1, Model: model, Batch: batch, Replicas: replicas, Epochs: 1}
						if replicas == 16 && model == "mlp" {
							spec.Rounds, spec.Containers = 64, 16
							if d.Train < spec.Rounds*batch {
								spec.Epochs = 8 // in one there are fewer steps than rounds
							}
						}
						checkMemory(t, fmt.Sprintf("batch %d, %d replicas", batch, replicas), trainOn(t, program, st, d, spec))
					}
				}
			})
		}
	}
}

// shorten leaves the first records of both parts, n at most.
func shorten(set *data.Set, n int) {
	for _, part := range []*data.Split{&set.Train, &set.Test} {
		n := min(n, part.Len())
		part.Pixels, part.Labels = part.Pixels[:n*set.Info.RecordBytes()], part.Labels[:n]
	}
	set.Info.Train, set.Info.Test = set.Train.Len(), set.Test.Len()
}

// trainOn runs a training job on the embedded platform with its usual limits.
func trainOn(t *testing.T, program string, st *dir.Store, d job.Dataset, spec job.Spec) job.Record {
	t.Helper()
	ctx := t.Context()
	driver, err := process.Open(ctx, process.Config{Command: []string{program}})
	if err != nil {
		t.Fatal(err)
	}
	platform, err := pool.Open(ctx, pool.Config{}, driver)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := platform.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	id := job.ID(fmt.Sprintf("memory-%d-%d", spec.Batch, spec.Replicas))
	record, err := control.Run(ctx, control.Config{
		Platform: platform, Store: st, Init: map[string]string{worker.StoreEnv: st.URL()},
	}, control.Created{Job: id, Spec: spec.WithDefaults(), Dataset: d})
	if err != nil {
		t.Fatal(err)
	}
	if record.Status != job.Succeeded {
		t.Fatalf("the job %s: %s", record.Status, record.Error)
	}
	return record
}
