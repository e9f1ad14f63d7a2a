// SPDX-License-Identifier: Apache-2.0

package job_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"disdel/internal/job"
)

func TestNewID(t *testing.T) {
	at := time.Date(2026, 11, 23, 15, 2, 59, 0, time.FixedZone("CET", 3600))
	id, err := job.NewID(at, strings.NewReader("\x4f\x2a\x91more"))
	if err != nil || id != "20261123-140259-4f2a91" {
		t.Errorf("NewID = %q, %v", id, err)
	}
	if err := id.Validate(); err != nil {
		t.Error(err)
	}
	later, err := job.NewID(at.Add(time.Second), strings.NewReader("\x00\x00\x00"))
	if err != nil || later <= id {
		t.Errorf("%q, made a second after %q, does not sort after it: %v", later, id, err)
	}
	if id, err := job.NewID(at, strings.NewReader("ab")); !errors.Is(err, io.ErrUnexpectedEOF) || id != "" {
		t.Errorf("NewID without randomness = %q, %v", id, err)
	}
}

func TestID_Validate(t *testing.T) {
	for _, id := range []job.ID{"a", "0", "a-", "20261123-140259-4f2a91", job.ID(strings.Repeat("x", job.MaxIDLength))} {
		if err := id.Validate(); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []job.ID{"", "-a", "A", "a b", "a/b", "a.b", "..", "a_b", "é", "a\x00", job.ID(strings.Repeat("x", job.MaxIDLength+1))} {
		if err := id.Validate(); err == nil {
			t.Errorf("%q is valid", id)
		}
	}
}

func TestSpec_WithDefaults(t *testing.T) {
	got := job.Spec{Kind: job.Train, Dataset: "mnist"}.WithDefaults()
	want := job.Spec{
		Kind: job.Train, Dataset: "mnist", Model: "cnn", Epochs: 5, Batch: 64, Optimizer: "adam", LearningRate: 1e-3,
		Strategy: job.Distributed, Estimator: job.Exact, Minimize: job.LeastTime,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("training: %+v, want %+v", got, want)
	}
	if got := got.WithDefaults(); !reflect.DeepEqual(got, want) {
		t.Errorf("defaults of defaults: %+v", got)
	}
	got = job.Spec{Kind: job.Infer, Dataset: "mnist"}.WithDefaults()
	if want := (job.Spec{Kind: job.Infer, Dataset: "mnist", Batch: 64}); !reflect.DeepEqual(got, want) {
		t.Errorf("inference: %+v, want %+v", got, want)
	}
	for _, s := range []job.Spec{got, want} {
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestSpec_Validate(t *testing.T) {
	valid := job.Spec{Kind: job.Train, Dataset: "mnist"}.WithDefaults()
	tests := []struct {
		field     string // as the message names it
		good, bad []func(s *job.Spec)
	}{
		{"kind", nil, []func(s *job.Spec){func(s *job.Spec) { s.Kind = "" }, func(s *job.Spec) { s.Kind = "Train" }}},
		{"data set", nil, []func(s *job.Spec){func(s *job.Spec) { s.Dataset = "" }}},
		{"model", nil, []func(s *job.Spec){func(s *job.Spec) { s.Model = "" }}},
		{"model spec", []func(s *job.Spec){func(s *job.Spec) { s.ModelSpec = json.RawMessage(`{}`) }}, []func(s *job.Spec){
			func(s *job.Spec) { s.ModelSpec = json.RawMessage(`{`) },
			func(s *job.Spec) { s.ModelSpec = json.RawMessage(strings.Repeat(" ", job.MaxModelSpec) + "{}") },
			func(s *job.Spec) { s.Kind, s.ModelSpec = job.Infer, json.RawMessage(`{}`) },
		}},
		{
			"kernel",
			[]func(s *job.Spec){func(s *job.Spec) { s.Kernel = "auto" }, func(s *job.Spec) { s.Kernel = "reference" }},
			[]func(s *job.Spec){func(s *job.Spec) { s.Kernel = "fma-1" }, func(s *job.Spec) { s.Kind, s.Kernel = job.Infer, "sse" }},
		},
		bounds("epochs", 1, job.MaxEpochs, func(s *job.Spec, n int) { s.Epochs = n }),
		bounds("batch", 1, job.MaxBatch, func(s *job.Spec, n int) { s.Batch = n }),
		bounds("workers", 0, job.MaxReplicas, func(s *job.Spec, n int) { s.Replicas = n }),
		bounds("local batch", 0, job.MaxBatch, func(s *job.Spec, n int) { s.LocalBatch = n }),
		bounds("rounds", 0, job.MaxRounds, func(s *job.Spec, n int) { s.Rounds = n }),
		bounds("containers", 0, job.MaxReplicas, func(s *job.Spec, n int) { s.Containers = n }),
		{"memory", []func(s *job.Spec){func(s *job.Spec) { s.Memory = 1 }}, []func(s *job.Spec){func(s *job.Spec) { s.Memory = -1 }}},
		{"timeout", []func(s *job.Spec){func(s *job.Spec) { s.Timeout = 1 }}, []func(s *job.Spec){func(s *job.Spec) { s.Timeout = -1 }}},
		{
			"schedule",
			[]func(s *job.Spec){func(s *job.Spec) { s.Schedule = "cosine" }, func(s *job.Spec) { s.Schedule = "constant" }},
			[]func(s *job.Spec){func(s *job.Spec) { s.Schedule = "linear" }},
		},
		numbers("warm-up", []float64{0, 0.5, 4.9}, []float64{5, -1, math.NaN(), math.Inf(1)}, func(s *job.Spec, v float64) { s.Warmup = v }),
		numbers("l2", []float64{0, 1e-4, job.MaxL2}, []float64{-1, 11, math.NaN(), math.Inf(1)}, func(s *job.Spec, v float64) { s.L2 = v }),
		numbers("clip", []float64{0, 1, job.MaxClip}, []float64{-1, 1e7, math.NaN(), math.Inf(1)}, func(s *job.Spec, v float64) { s.Clip = v }),
		numbers("label smoothing", []float64{0, 0.1, 0.99}, []float64{-0.1, 1, math.NaN()}, func(s *job.Spec, v float64) { s.LabelSmoothing = v }),
		bounds("shifts", 0, job.MaxShifts, func(s *job.Spec, n int) { s.Shifts = n }),
		rates([]float64{math.SmallestNonzeroFloat64, 1, 10},
			[]float64{0, -1, math.Nextafter(10, 11), math.NaN(), math.Inf(1), math.Inf(-1)}),
	}
	for _, test := range tests {
		for i, change := range test.good {
			s := valid
			if change(&s); s.Validate() != nil {
				t.Errorf("%s, good value %d: %v", test.field, i, s.Validate())
			}
		}
		for i, change := range test.bad {
			s := valid
			change(&s)
			err := s.Validate()
			if !errors.Is(err, job.ErrSpec) || !strings.Contains(err.Error(), test.field) {
				t.Errorf("%s, bad value %d: %v, want an ErrSpec that names the field", test.field, i, err)
			}
		}
	}
	err := job.Spec{Memory: -1, Timeout: -1, Containers: -1}.Validate()
	for _, want := range []string{"kind", "data set", "batch", "memory", "timeout", "containers"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not mention %s", err, want)
		}
	}
	infer := job.Spec{Kind: job.Infer, Dataset: "mnist", Batch: 1, Epochs: -1, LearningRate: math.NaN()}
	if err := infer.Validate(); err != nil {
		t.Errorf("inference minds fields of training: %v", err)
	}
}

func bounds(field string, low, high int, set func(s *job.Spec, n int)) (test struct {
	field     string
	good, bad []func(s *job.Spec)
},
) {
	test.field = field
	for _, n := range []int{low, low + 1, high} {
		test.good = append(test.good, func(s *job.Spec) { set(s, n) })
	}
	for _, n := range []int{low - 1, math.MinInt, high + 1, math.MaxInt} {
		test.bad = append(test.bad, func(s *job.Spec) { set(s, n) })
	}
	return test
}

func rates(good, bad []float64) (test struct {
	field     string
	good, bad []func(s *job.Spec)
},
) {
	return numbers("learning rate", good, bad, func(s *job.Spec, v float64) { s.LearningRate = v })
}

func numbers(field string, good, bad []float64, set func(s *job.Spec, v float64)) (test struct {
	field     string
	good, bad []func(s *job.Spec)
},
) {
	test.field = field
	for _, v := range good {
		test.good = append(test.good, func(s *job.Spec) { set(s, v) })
	}
	for _, v := range bad {
		test.bad = append(test.bad, func(s *job.Spec) { set(s, v) })
	}
	return test
}

// Rounds divide the steps: without gaps, in order, all of one length but the
// last.
func TestNumerics_Rounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := job.Numerics{Steps: rapid.IntRange(1, 5000).Draw(t, "steps"), RoundSteps: rapid.IntRange(1, 6000).Draw(t, "roundSteps")}
		from := 0
		for round := range n.Rounds() {
			to := n.RoundEnd(round)
			if to <= from || to-from > n.RoundSteps || to-from < n.RoundSteps && round != n.Rounds()-1 || from != round*n.RoundSteps {
				t.Fatalf("round %d of %d: steps %d to %d", round, n.Rounds(), from, to)
			}
			from = to
		}
		if from != n.Steps {
			t.Fatalf("the rounds end at step %d of %d", from, n.Steps)
		}
	})
}

// Every record belongs to one replica, and replicas differ by one record at
// most.
func TestNumerics_ReplicaRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := job.Numerics{Replicas: rapid.IntRange(1, 50).Draw(t, "replicas")}
		n.Dataset.Train = rapid.IntRange(n.Replicas, 100_000).Draw(t, "records")
		total, least, most := 0, n.Dataset.Train, 0
		for replica := range n.Replicas {
			records := n.ReplicaRecords(replica)
			total, least, most = total+records, min(least, records), max(most, records)
		}
		if total != n.Dataset.Train || most-least > 1 || least < 1 {
			t.Fatalf("%d records, %d to %d each", total, least, most)
		}
	})
}

func TestNumerics_DigestOfAllFields(t *testing.T) {
	base := job.Numerics{Model: json.RawMessage(`{"a":1}`)}
	changes := []func(n *job.Numerics){
		func(*job.Numerics) {},
		func(n *job.Numerics) { n.Version++ }, func(n *job.Numerics) { n.KernelSet = "k" },
		func(n *job.Numerics) { n.Dataset.Digest = "d" }, func(n *job.Numerics) { n.Dataset.Train++ },
		func(n *job.Numerics) { n.Dataset.Scale++ }, func(n *job.Numerics) { n.Dataset.ShardRecords++ },
		func(n *job.Numerics) { n.Model = json.RawMessage(`{"a":2}`) },
		func(n *job.Numerics) { n.Seed++ }, func(n *job.Numerics) { n.Epochs++ }, func(n *job.Numerics) { n.Batch++ },
		func(n *job.Numerics) { n.LocalBatch++ }, func(n *job.Numerics) { n.Replicas++ },
		func(n *job.Numerics) { n.StepsPerEpoch++ }, func(n *job.Numerics) { n.Steps++ }, func(n *job.Numerics) { n.RoundSteps++ },
		func(n *job.Numerics) { n.Local.LearningRate++ }, func(n *job.Numerics) { n.Local.Beta1++ },
		func(n *job.Numerics) { n.Local.Kind = "sgd" }, func(n *job.Numerics) { n.Local.Momentum++ },
		func(n *job.Numerics) { n.Local.WeightDecay++ }, func(n *job.Numerics) { n.Local.Beta2++ }, func(n *job.Numerics) { n.Local.Epsilon++ },
		func(n *job.Numerics) { n.Local.Schedule = "step" }, func(n *job.Numerics) { n.Local.ScheduleSteps++ },
		func(n *job.Numerics) { n.Local.WarmupSteps++ }, func(n *job.Numerics) { n.Local.L2++ }, func(n *job.Numerics) { n.Local.ClipNorm++ },
		func(n *job.Numerics) { n.LabelSmoothing++ }, func(n *job.Numerics) { n.Flips = true }, func(n *job.Numerics) { n.Shifts++ },
		func(n *job.Numerics) { n.Outer.LearningRate++ }, func(n *job.Numerics) { n.Outer.Momentum++ },
	}
	seen := map[string]int{}
	for i, change := range changes {
		n := base
		change(&n)
		digest, err := n.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[digest]; ok {
			t.Errorf("changes %d and %d have one digest", i, other)
		}
		seen[digest] = i
		raw, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		var back job.Numerics
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatal(err)
		}
		if again, err := back.Digest(); err != nil || again != digest {
			t.Errorf("change %d: another digest after a way through JSON: %v", i, err)
		}
	}
	// A job that was planned before there was a field has the digest that it had.
	const old = "35e2e1665b108e3acc6a8d6d6c629aa3b64611e09e6772b490d80c90cdd5ecc7"
	if digest, err := base.Digest(); err != nil || digest != old {
		t.Errorf("the digest of a plain plan is %s, %v; want %s", digest, err, old)
	}
	if _, err := (job.Numerics{Model: json.RawMessage("{")}).Digest(); err == nil {
		t.Error("a plan that is no JSON has a digest")
	}
}

// All keys of a job differ, and all but the log's start with the job's scratch
// prefix, which is no prefix of another job's keys.
func TestKeys_Unique(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []job.ID{"a", "ab", "a-b"} {
		for _, plan := range []string{"", strings.Repeat("0", 64), strings.Repeat("1", 64)} {
			k := job.Keys{Job: id, Plan: plan}
			keys := []string{k.Numerics(), k.Final()}
			for i := range 12 {
				keys = append(keys, k.Global(i), k.Global(1_000_000_000+i))
				for j := range 12 {
					keys = append(keys, k.Replica(i, j))
				}
				if plan == "" {
					keys = append(keys, k.Counts(i))
				}
			}
			for _, key := range keys {
				if seen[key] {
					t.Errorf("key %s is used twice", key)
				}
				seen[key] = true
				for _, other := range []job.ID{"a", "ab", "a-b"} {
					if strings.HasPrefix(key, job.Keys{Job: other}.Scratch()) != (other == id) {
						t.Errorf("key %s of job %s, scratch space of job %s", key, id, other)
					}
				}
			}
			if k.Log() != job.LogPrefix+string(id) {
				t.Errorf("log %s", k.Log())
			}
		}
	}
	if job.ModelKey("x") == job.ModelsLog {
		t.Error("a model has the key of the list")
	}
}

func TestDataset_Shards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := job.Dataset{
			Digest: "d", ShardRecords: rapid.IntRange(1, 2000).Draw(t, "shard"),
			Train: rapid.IntRange(0, 100_000).Draw(t, "train"), Test: rapid.IntRange(0, 5000).Draw(t, "test"),
		}
		for part, records := range map[job.Part]int{job.TrainPart: d.Train, job.TestPart: d.Test} {
			shards := d.Shards(part)
			if d.Records(part) != records || shards*d.ShardRecords < records || (shards-1)*d.ShardRecords >= max(records, 1) {
				t.Fatalf("%s: %d records in %d shards of %d", part, records, shards, d.ShardRecords)
			}
		}
	})
	d := job.Dataset{Digest: "d", ShardRecords: 10, Height: 28, Width: 27, Channels: 3}
	if d.RecordBytes() != 2268 {
		t.Errorf("record of %d bytes", d.RecordBytes())
	}
	keys := []string{d.ShardKey(job.TrainPart, 1), d.ShardKey(job.TestPart, 1), d.ShardKey(job.TrainPart, 11)}
	d.ShardRecords = 1
	keys = append(keys, d.ShardKey(job.TrainPart, 1))
	slices.Sort(keys)
	if len(slices.Compact(keys)) != 4 {
		t.Errorf("shards share keys: %v", keys)
	}
}

func TestResources_ActionName(t *testing.T) {
	for memory, want := range map[job.Bytes]string{128 * job.MB: "m128", job.MB + 1: "b1048577", 1000: "b1000"} {
		if got := (job.Resources{Memory: memory}).ActionName(); got != want {
			t.Errorf("action of %d bytes: %s, want %s", memory, got, want)
		}
	}
	e := job.Estimate{Fit: 1, Package: 10, Data: 100, Model: 1000, Safety: 10000}
	if e.Total() != 11111 {
		t.Errorf("total %d of %+v", e.Total(), e)
	}
}

// TestRecord_JSON fixes the names that --json prints: programs read them.
func TestRecord_JSON(t *testing.T) {
	record := job.Record{
		Job: "j", Kind: job.Train, Status: job.Failed, Error: "why", Dataset: "mnist",
		Model:  job.RecordModel{Name: "cnn", Parameters: 1, Digest: "ab"},
		Epochs: 2, Batch: 3, LocalBatch: 4, Replicas: 5, Rounds: 6, Seed: math.MaxUint64, KernelSet: "k", Platform: "p", Enforcement: "e",
		Strategy: job.Single, AccuracyCost: 0.0625, AccuracyNote: "why",
		Accuracy: 0.5, Loss: 0.25, Records: 7, Confusion: [][]int{{1, 2}, {3, 4}},
		Metrics: job.Metrics{
			Containers: 1, ColdStarts: 11, Warmed: 12, MemoryLimit: 2, MemoryPeak: 3, StorePeak: 4, ControllerPeak: 5, GBSeconds: 6.5, DurationSeconds: 7.5,
			InitSeconds: 8.5, FailedContainers: 9, Handovers: 10, FailureRate: 0.75,
		},
		Actions: []job.RecordAction{{
			Name: "m128", Role: job.RoleTrain, Replica: 1, Container: "c", MemoryLimit: 2, Predicted: 3, Peak: 4,
			DurationSeconds: 5.5, InitSeconds: 6.5, WaitSeconds: 7.5, StepSeconds: 8.5, Cold: true, Warmed: true, Outcome: "success",
		}},
	}
	got, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/record.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(append(got, '\n'), want) {
		t.Errorf("the JSON of a record has changed, which breaks programs that read it:\n%s", got)
	}
	decoder := json.NewDecoder(bytes.NewReader(want))
	decoder.DisallowUnknownFields()
	var back job.Record
	if err := decoder.Decode(&back); err != nil || fmt.Sprint(back) != fmt.Sprint(record) {
		t.Errorf("read back: %v\n%+v", err, back)
	}
}
