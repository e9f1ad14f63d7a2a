// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"disdel/internal/control"
	"disdel/internal/data/format/formattest"
	"disdel/internal/job"
	"disdel/internal/worker"
)

// bigSquares writes a data set of dark and light squares that takes 16 MB as
// float32, and returns its path.
func (d *desk) bigSquares() string {
	const records, side = 5000, 28
	pixels, labels := make([]byte, records*side*side), make([]byte, records)
	for r := range records {
		labels[r] = byte(r % 2)
		for p := range side * side {
			pixels[r*side*side+p] = byte(150*(r%2) + (r*31+p*7)%100)
		}
	}
	test := 200
	return d.write("squares.npz", formattest.NPZ(8,
		formattest.File("x_train.npy", formattest.NPY("|u1", false, "5000, 28, 28", pixels)),
		formattest.File("y_train.npy", formattest.NPY("|u1", false, "5000,", labels)),
		formattest.File("x_test.npy", formattest.NPY("|u1", false, "200, 28, 28", pixels[:test*side*side])),
		formattest.File("y_test.npy", formattest.NPY("|u1", false, "200,", labels[:test])),
	))
}

func record(t *testing.T, o outcome) (r job.Record) {
	t.Helper()
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatalf("%v: %s", err, o.stdout)
	}
	return r
}

// TestStrategies: brute force really dies of its memory limit, starts again with
// more, and ends with the model that a single worker gives.
func TestStrategies(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	train := []string{"train", d.bigSquares(), "--model", "mlp", "--epochs", "1", "--json", "--quiet"}
	single := record(t, d.run(append(train, "--strategy", "single")...).want(t, ExitOK))
	if single.Strategy != job.Single || single.Replicas != 1 || single.LocalBatch != 64 || single.Rounds != 1 || single.Metrics.Handovers != 0 || single.Accuracy < 0.99 {
		t.Errorf("single: %+v", single)
	}
	for _, a := range single.Actions {
		// What was predicted is the limit, in whole MB.
		if a.Role != job.RoleProbe && (a.MemoryLimit < a.Predicted || a.MemoryLimit > 40*job.MB) {
			t.Errorf("single, %s: predicted %v, limit %v", a.Role, a.Predicted, a.MemoryLimit)
		}
	}

	brute := append(train, "--strategy", "brute-force", "--min-memory", "16", "--memory", "16")
	r := record(t, d.run(brute...).want(t, ExitOK))
	if r.Model.Digest != single.Model.Digest || r.Strategy != job.BruteForce {
		t.Errorf("brute force: model %s of strategy %s; single: %s", r.Model.Digest, r.Strategy, single.Model.Digest)
	}
	m := r.Metrics
	if m.FailedContainers != 1 || m.Containers < 2 || m.FailureRate != 1/float64(m.Containers) {
		t.Errorf("%d of %d containers failed, rate %v; want one", m.FailedContainers, m.Containers, m.FailureRate)
	}
	var limits []job.Bytes
	var cost float64
	for _, a := range r.Actions {
		cost += float64(a.MemoryLimit) / float64(job.GB) * (a.DurationSeconds + a.InitSeconds)
		if a.Role == job.RoleTrain {
			limits = append(limits, a.MemoryLimit)
		}
	}
	if len(limits) != 2 || limits[0] != 16*job.MB || limits[1] != 272*job.MB {
		t.Errorf("trained with %v; want 16 MB, then 272 MB", limits)
	}
	if outcome := r.Actions[firstTraining(r)].Outcome; outcome != "out_of_memory" {
		t.Errorf("the first attempt was %s", outcome)
	}
	if math.Abs(cost-m.GBSeconds) > 1e-9 {
		t.Errorf("%v GB-seconds; all invocations together cost %v", m.GBSeconds, cost)
	}

	ended := d.run(append(brute, "--max-memory", "17")...).want(t, ExitFailed)
	if r := record(t, ended); r.Status != job.Failed || r.Metrics.FailedContainers != 2 || !strings.Contains(r.Error, "the most that the platform allows") {
		t.Errorf("with too small a platform: %s, %d failed containers, %q", r.Status, r.Metrics.FailedContainers, r.Error)
	}

	// Nothing fails at the platform's defaults.
	easy := record(t, d.run("train", "digits", "--epochs", "1", "--strategy", "brute-force", "--json", "--quiet").want(t, ExitOK))
	if easy.Metrics.FailedContainers != 0 || easy.Metrics.FailureRate != 0 || easy.Actions[firstTraining(easy)].MemoryLimit != 256*job.MB {
		t.Errorf("digits: %+v", easy.Metrics)
	}
	if left := d.scratch(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func firstTraining(r job.Record) int {
	for i, a := range r.Actions {
		if a.Role == job.RoleTrain {
			return i
		}
	}
	return -1
}

// TestPlans: what a plan says of other objectives, of the thesis's formula, of a
// baseline, and of what a division costs.
func TestPlans(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	path := d.bigSquares()
	for _, c := range []struct {
		args string
		code int
		out  []string
		err  []string
	}{
		{"", ExitOK, []string{"chosen:", "next best:", "GB-seconds"}, nil},
		{"--minimize memory", ExitOK, []string{"1 of 128 MB", "the least memory at once"}, nil},
		{"--minimize cost", ExitOK, []string{"the least cost"}, nil},
		{"--containers 1", ExitOK, []string{"--containers asks for no more"}, nil},
		{"--strategy single", ExitOK, []string{"none: training is one invocation", "720h0m0s an invocation"}, nil},
		{"--strategy brute-force", ExitOK, []string{"begins with 256 MB and 1m0s", "the scheduler would have said"}, nil},
		{"--epochs 30 --estimator thesis", ExitFailed, nil, []string{"by the thesis's formula train takes fit", "taken as bytes", "short by"}},
		{"--workers 32", ExitOK, []string{"accuracy", "points less than one worker would reach"}, nil},
	} {
		got := d.run(append([]string{"plan", path}, strings.Fields(c.args)...)...).want(t, c.code, c.err...)
		for _, part := range c.out {
			if !strings.Contains(got.stdout, part) {
				t.Errorf("plan %s does not say %q:\n%s", c.args, part, got.stdout)
			}
		}
	}
	object := d.run("plan", path, "--rounds", "1", "--workers", "4", "--json").want(t, ExitOK).object(t)
	if cost := field[float64](t, object, "resources", "expected_accuracy_cost"); cost <= 0 || cost > 0.5 {
		t.Errorf("one average at the end is expected to cost %v", cost)
	}
	got := d.run("train", "digits", "--epochs", "1", "--workers", "8", "--json").want(t, ExitOK, "disdel: accuracy: ")
	if cost := field[float64](t, got.object(t), "expected_accuracy_cost"); cost <= 0 {
		t.Errorf("8 replicas with few steps are expected to cost %v", cost)
	}
}

// TestVersions: a worker of another version is told of, once, also with --quiet.
func TestVersions(t *testing.T) {
	var said strings.Builder
	p := (&app{stderr: &said, getenv: func(string) string { return "" }}).newProgress(true)
	state := control.State{Probe: &job.Probe{Version: "v0.0.1-other"}}
	p.show(state)
	p.show(state)
	if text := said.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "v0.0.1-other") || !strings.Contains(text, worker.Version()) {
		t.Errorf("said %q", text)
	}
	said.Reset()
	p = (&app{stderr: &said, getenv: func(string) string { return "" }}).newProgress(true)
	p.show(control.State{Probe: &job.Probe{Version: worker.Version()}})
	if said.Len() > 0 {
		t.Errorf("of its own version it said %q", said.String())
	}
}
