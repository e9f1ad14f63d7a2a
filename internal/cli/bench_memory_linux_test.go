// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"disdel/internal/bench"
	"disdel/internal/job"
)

// TestBenchMemory: what is promised of predictions holds for a few cases of a seed.
func TestBenchMemory(t *testing.T) {
	d := newDesk(t)
	o := d.exec("bench", "memory", "--cases", "8", "--seed", "3", "--json").want(t, ExitOK, "case 8 of 8: ")
	var answer struct {
		Summary bench.MemorySummary
		Runs    []bench.MemoryRun
	}
	if err := json.Unmarshal([]byte(o.stdout), &answer); err != nil {
		t.Fatalf("%v: %s", err, o.stdout)
	}
	if s := answer.Summary; s.Cases != 8 || !s.Kept || len(answer.Runs) != 8 {
		t.Errorf("%+v", s)
	}
	text := d.exec("bench", "memory", "--cases", "1", "--models", "mlp", "--quiet").want(t, ExitOK)
	if !strings.Contains(text.stdout, "mlp ") || !strings.Contains(text.stdout, "under") || text.stderr != "" {
		t.Errorf("printed %s; %s", text.stdout, text.stderr)
	}
	for args, says := range map[string]string{
		"digits": "unknown argument", "--cases 0": "cases", "--cases 10001": "--cases 10001", "--models vgg": "unknown model", "--models=": "--models: want one",
		"--seed x": "seed",
	} {
		d.exec(append([]string{"bench", "memory"}, strings.Fields(args)...)...).want(t, ExitUsage, says)
	}
}

func TestBenchWorker(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	o := d.exec("bench", "worker", "--runs", "2", "--steps", "12", "--json").want(t, ExitOK)
	var answer struct{ Worker bench.WorkerResult }
	if err := json.Unmarshal([]byte(o.stdout), &answer); err != nil {
		t.Fatalf("%v: %s", err, o.stdout)
	}
	r := answer.Worker
	if r.Process.Min <= 0 || r.Process.Max > float64(r.Predicted) || r.Peak.Max > float64(r.Predicted) || r.FirstStep.Min <= 0 ||
		r.Least <= 0 || r.Least > 20*job.MB || r.Store != "dir" || r.ProgramBytes <= job.MB {
		t.Errorf("%+v", r)
	}
	for args, says := range map[string]string{"digits": "unknown argument", "--runs 0": "runs", "--steps 10000001": "--steps 10000001", "--store nowhere": "--store"} {
		d.exec(append([]string{"bench", "worker"}, strings.Fields(args)...)...).want(t, ExitUsage, says)
	}
}
