// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// FuzzLog: whatever a log holds, folding it gives an error or a state that can be
// decided on and reported.
func FuzzLog(f *testing.F) {
	add := func(events ...Event) {
		raw, err := json.Marshal(events)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	created := Created{
		Job: "j", Spec: job.Spec{Kind: job.Infer, Dataset: "d", Batch: 1, Output: "/p.csv"},
		Dataset: job.Dataset{Name: "d", Height: 2, Width: 2, Channels: 1, Classes: 2, Test: 4, ShardRecords: 2, Scale: 1},
		Model:   &Model{Digest: "m", Spec: json.RawMessage(`{"input":{"h":2,"w":2,"c":1},"classes":2,"layers":[{"kind":"flatten"},{"kind":"dense","units":2}]}`)},
		Limits:  job.Limits{MemoryDefault: job.GB, TimeoutDefault: time.Minute},
	}
	probe := job.Probe{KernelSet: "k", Package: job.MB, FLOPS: 1e9, StoreRate: 1e9}
	planned := Planned{Resources: job.Resources{Memory: job.MB, Containers: 1, InferPieces: 1, InferBatch: 1}}
	task := job.Task{Role: job.RoleInfer, Job: "j", ShardTo: 2}
	add(Event{Created: &created})
	add(Event{Created: &created}, Event{Probed: &Probed{Probe: probe}}, Event{Planned: &planned}, Event{Deployed: &Deployed{Action: "m1"}},
		Event{Invoked: &Invoked{Action: "m1", Task: task}}, Event{Ended: &Ended{Kind: platform.Success, Result: &job.TaskResult{Records: 4}}})
	add(Event{Created: &created}, Event{Resumed: &Resumed{}}, Event{Exported: &Exported{}}, Event{Finished: &Finished{Status: job.Cancelled}})
	f.Add([]byte("[{}]"))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		events, err := decode(raw)
		if err != nil {
			return
		}
		var s State
		for _, e := range events {
			if s, err = fold(s, e); err != nil {
				return
			}
		}
		record := s.Record()
		if _, err := json.Marshal(record); err != nil {
			t.Fatalf("%+v: %v", record, err)
		}
		_ = s.Progress()
	})
}
