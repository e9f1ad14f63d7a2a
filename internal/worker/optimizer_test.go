// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"slices"
	"strings"
	"testing"

	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/safetensors"
	"disdel/internal/store/mem"
)

// normedPlan is a plan of two replicas and two rounds over the probe's data with
// a model that has state and dropout.
func normedPlan(t *testing.T, w *Worker, o nn.Optimizer) (job.Numerics, job.Keys) {
	t.Helper()
	spec, err := nn.Complete([]byte(`{"name":"normed","layers":[
		{"kind":"conv2d","filters":4,"kernel":3,"padding":"same","no_bias":true},{"kind":"batchnorm"},{"kind":"relu"},
		{"kind":"flatten"},{"kind":"dropout","rate":0.25},{"kind":"dense"}]}`),
		nn.Shape{H: probeData.Height, W: probeData.Width, C: probeData.Channels}, probeData.Classes)
	if err != nil {
		t.Fatal(err)
	}
	d := probeData
	d.Digest = "normed"
	n := job.Numerics{
		Version: job.NumericsVersion, KernelSet: w.cfg.Kernels.Name, Dataset: d, Model: spec.Canonical(),
		Seed: 3, Epochs: 1, Batch: probeBatch, LocalBatch: probeBatch, Replicas: 2,
		StepsPerEpoch: 4, Steps: 4, RoundSteps: 2,
		Local: job.Optimizer(o), Outer: job.Nesterov{LearningRate: 0.7, Momentum: 0.9},
	}
	digest, err := n.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return n, job.Keys{Job: "normed", Plan: digest}
}

// runNormed carries out the plan in slices and returns the model's digest, and
// the worker whose store has all states.
func runNormed(t *testing.T, o nn.Optimizer, slices [][2]int) (w *Worker, n job.Numerics, keys job.Keys, digest string) {
	t.Helper()
	ctx := context.Background()
	w = New(Config{})
	w.store = mem.New()
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	n, keys = normedPlan(t, w, o)
	if err := w.putProbeData(ctx, keys, n); err != nil {
		t.Fatal(err)
	}
	for i, s := range slices {
		for replica := range n.Replicas {
			// Whether outputs are made again does not show either.
			task := job.Task{Role: job.RoleTrain, Job: keys.Job, Plan: keys.Plan, Replica: replica, From: s[0], To: s[1], Remake: i%2 == 1}
			if _, err := w.Do(ctx, task); err != nil {
				t.Fatal(err)
			}
		}
		if s[1]%n.RoundSteps == 0 {
			result, err := w.Do(ctx, job.Task{Role: job.RoleAverage, Job: keys.Job, Plan: keys.Plan, From: s[1] - n.RoundSteps, To: s[1]})
			if err != nil {
				t.Fatal(err)
			}
			digest = result.Digest
		}
	}
	return w, n, keys, digest
}

// tensorsOf reads a file of tensors from the store.
func tensorsOf(t *testing.T, w *Worker, key string) (names []string, values map[string][]float32) {
	t.Helper()
	object, err := w.store.Get(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := safetensors.NewReader(object)
	if err != nil {
		t.Fatal(err)
	}
	values = map[string][]float32{}
	for _, info := range r.Header().Tensors {
		v := make([]float32, info.Len)
		if err := r.ReadNext(v); err != nil {
			t.Fatal(err)
		}
		names, values[info.Name] = append(names, info.Name), v
	}
	if err := r.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := object.Close(); err != nil {
		t.Fatal(err)
	}
	return names, values
}

func TestStatesHoldWhatExists(t *testing.T) {
	const state = "batchnorm_1.moving_mean batchnorm_1.moving_variance"
	learned := []string{"conv2d_1.weight", "batchnorm_1.gamma", "batchnorm_1.beta", "dense_1.weight", "dense_1.bias"}
	group := func(prefix string) string { return prefix + strings.Join(learned, " "+prefix) }
	for _, o := range []nn.Optimizer{nn.Adam(1e-2), nn.AdamW(1e-2), nn.SGD(1e-2), {Kind: nn.KindSGD, LearningRate: 1e-2}} {
		whole := [][2]int{{0, 2}, {2, 4}}
		w, _, keys, digest := runNormed(t, o, whole)
		want := []string{group(""), state}
		for _, prefix := range []string{prefixM, prefixV}[:o.Moments()] {
			want = append(want, group(prefix))
		}
		names, _ := tensorsOf(t, w, keys.Replica(1, 2))
		if got := strings.Join(names, " "); got != strings.Join(want, " ") {
			t.Errorf("%s: a replica has %s", o.Kind, got)
		}
		names, global := tensorsOf(t, w, keys.Global(2))
		if got := strings.Join(names, " "); got != strings.Join(append(want, group(prefixOuter)), " ") {
			t.Errorf("%s: the average has %s", o.Kind, got)
		}
		names, _ = tensorsOf(t, w, keys.Final())
		if got := strings.Join(names, " "); got != strings.Join(want[:2], " ") {
			t.Errorf("%s: the model has %s", o.Kind, got)
		}

		// The model's own state is the plain mean; the replicas own 32 records
		// each.
		_, a := tensorsOf(t, w, keys.Replica(0, 2))
		_, b := tensorsOf(t, w, keys.Replica(1, 2))
		for _, name := range strings.Fields(state) {
			for i, got := range global[name] {
				if mean := float32((float64(a[name][i]) + float64(b[name][i])) / 2); got != mean || a[name][i] == b[name][i] {
					t.Errorf("%s: %s is %v of %v and %v", o.Kind, name, got, a[name][i], b[name][i])
				}
			}
		}
		if slices.Equal(global["dense_1.bias"], a["dense_1.bias"]) {
			t.Errorf("%s: nothing was averaged", o.Kind)
		}

		// Where work is cut does not show, neither in moments nor in masks.
		if _, _, _, cut := runNormed(t, o, [][2]int{{0, 1}, {1, 2}, {2, 3}, {3, 4}}); cut != digest || digest == "" {
			t.Errorf("%s: digest %s, in smaller slices %s", o.Kind, digest, cut)
		}
	}
}
