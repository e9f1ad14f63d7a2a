// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/plan"
)

var update = flag.Bool("update", false, "rewrite the expected plans in testdata; read the difference as prose before you commit it")

// input is what a plan is made of.
type input struct {
	spec   job.Spec
	data   job.Dataset
	limits job.Limits
	probe  job.Probe
	then   []string // what happens afterwards: "oom train", "timeout train", "toolarge train"
}

// mnistLike is the default input: the thesis's first data set within the default
// limits of the embedded platform.
func mnistLike() input {
	return input{
		spec: job.Spec{Kind: job.Train, Dataset: "mnist", Seed: 1},
		data: job.Dataset{
			Name: "mnist", Digest: "d", Height: 28, Width: 28, Channels: 1, Classes: 10, Scale: 1.0 / 255,
			Train: 60000, Test: 10000, ShardRecords: 1000,
		},
		limits: job.Limits{
			MemoryMin: 128 * job.MB, MemoryMax: 512 * job.MB, MemoryStep: job.MB, MemoryDefault: 256 * job.MB,
			TimeoutMin: 100 * time.Millisecond, TimeoutMax: 5 * time.Minute, TimeoutDefault: time.Minute,
			PoolMemory: 2 * job.GB, Concurrency: 100, Processors: 2,
		},
		probe: job.Probe{KernelSet: "generic", Package: 9 * job.MB, Held: job.MB, FLOPS: 1e10, StoreRate: 1e8, StoreSeconds: 2e-4},
	}
}

// set changes one value, as a scenario writes it.
func (in *input) set(key, value string) error {
	number := func(to *int) (err error) { *to, err = strconv.Atoi(value); return err }
	size := func(to *job.Bytes) (err error) { *to, err = job.ParseBytes(value); return err }
	span := func(to *time.Duration) (err error) { *to, err = time.ParseDuration(value); return err }
	switch key {
	case "kind":
		in.spec.Kind = job.Kind(value)
	case "model":
		in.spec.Model = value
	case "epochs":
		return number(&in.spec.Epochs)
	case "batch":
		return number(&in.spec.Batch)
	case "replicas":
		return number(&in.spec.Replicas)
	case "local_batch":
		return number(&in.spec.LocalBatch)
	case "sync":
		in.spec.Sync = job.Sync(value)
	case "rounds":
		return number(&in.spec.Rounds)
	case "strategy":
		in.spec.Strategy = job.Strategy(value)
	case "estimator":
		in.spec.Estimator = job.Estimator(value)
	case "minimize":
		in.spec.Minimize = job.Objective(value)
	case "containers":
		return number(&in.spec.Containers)
	case "threads":
		return number(&in.spec.Threads)
	case "memory":
		return size(&in.spec.Memory)
	case "timeout":
		return span(&in.spec.Timeout)
	case "train":
		return number(&in.data.Train)
	case "test":
		return number(&in.data.Test)
	case "classes":
		return number(&in.data.Classes)
	case "shard":
		return number(&in.data.ShardRecords)
	case "shape":
		_, err := fmt.Sscanf(value, "%dx%dx%d", &in.data.Height, &in.data.Width, &in.data.Channels)
		return err
	case "min":
		return size(&in.limits.MemoryMin)
	case "max":
		return size(&in.limits.MemoryMax)
	case "step":
		return size(&in.limits.MemoryStep)
	case "pool":
		return size(&in.limits.PoolMemory)
	case "concurrency":
		return number(&in.limits.Concurrency)
	case "calls":
		return number(&in.limits.CallsPerMinute)
	case "processors":
		return number(&in.limits.Processors)
	case "timeout_max":
		return span(&in.limits.TimeoutMax)
	case "package":
		return size(&in.probe.Package)
	case "then":
		in.then = append(in.then, strings.ReplaceAll(value, "-", " "))
	default:
		return fmt.Errorf("unknown key %q", key)
	}
	return nil
}

// outcome is a plan, or why there is none.
type outcome struct {
	numerics  *job.Numerics
	resources job.Resources
	err       error
}

func (in input) plan() (out outcome) {
	spec := in.spec.WithDefaults()
	if out.err = spec.Validate(); out.err != nil {
		return out
	}
	if out.err = plan.Check(spec, in.limits); out.err != nil {
		return out
	}
	if spec.Kind == job.Infer {
		var model nn.Spec
		if model, out.err = nn.Named("cnn", nn.Shape{H: 28, W: 28, C: 1}, 10); out.err == nil {
			out.resources, out.err = plan.Infer(spec, in.data, model.Canonical(), in.limits, in.probe)
		}
	} else {
		var n job.Numerics
		if n, out.err = plan.Numerics(spec, in.data, in.probe.KernelSet); out.err != nil {
			return out
		}
		out.numerics = &n
		out.resources, out.err = plan.Train(spec, n, in.limits, in.probe)
	}
	for _, event := range in.then {
		if out.err != nil {
			return out
		}
		what, role, _ := strings.Cut(event, " ")
		switch what {
		case "oom":
			out.resources, out.err = plan.AfterOutOfMemory(out.resources, spec, in.limits, job.Role(role))
		case "toolarge":
			out.resources, out.err = plan.AfterTooLarge(out.resources, spec, in.limits, job.Role(role))
		default:
			out.resources, out.err = plan.AfterTimeout(out.resources, spec, in.limits, job.Role(role))
		}
	}
	return out
}

func (out outcome) String() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if n := out.numerics; n != nil {
		say("numerics: %d replicas, local batch %d of %d, %d steps an epoch, %d steps, %d rounds of %d",
			n.Replicas, n.LocalBatch, n.Batch, n.StepsPerEpoch, n.Steps, n.Rounds(), n.RoundSteps)
		say("optimizers: local %g, outer %g momentum %g", n.Local.LearningRate, n.Outer.LearningRate, n.Outer.Momentum)
	}
	if out.err != nil {
		say("error: %v", out.err)
		var short *plan.Infeasible
		if errors.As(out.err, &short) {
			say("limit: %s, need %d, have %d", short.Limit, short.Need, short.Have)
		}
		return b.String()
	}
	r := out.resources
	say("resources: revision %d, %d containers of %v, timeout %v, slices of %v", r.Revision, r.Containers, r.Memory, r.Timeout, r.Budget)
	remade := ""
	if r.Remake {
		remade = ", outputs made again"
	}
	say("steps: %d threads, spinning %v, at most %d records at once%s", r.Threads, r.Spin, r.MicroBatch, remade)
	say("inference: %d pieces, batch %d", r.InferPieces, r.InferBatch)
	for _, role := range slices.Sorted(maps.Keys(r.Roles)) {
		e := r.Roles[role]
		say("%s: %v = fit %v + pkg %v + dta %v + mod %v + saf %v", role, e.Total(), e.Fit, e.Package, e.Data, e.Model, e.Safety)
	}
	if r.Window > 0 {
		say("window: %d records", r.Window)
	}
	say("seconds: %.2f, GB-seconds: %.2f", r.Seconds, r.GBSeconds)
	for _, line := range r.Explanation {
		say("because: %s", line)
	}
	if r.AccuracyNote != "" {
		say("accuracy: -%.4f, %s", r.AccuracyCost, r.AccuracyNote)
	}
	return b.String()
}

// TestScenarios makes the plans of testdata. A case is a paragraph: comments
// with #, then key=value pairs that change the plan of mnist within the default
// limits, then ---- and the whole plan.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var rewritten []string
		for i, paragraph := range strings.Split(strings.TrimSpace(string(raw)), "\n\n") {
			head, want, _ := strings.Cut(paragraph+"\n", "----\n")
			in := mnistLike()
			for line := range strings.Lines(head) {
				if strings.HasPrefix(line, "#") {
					continue
				}
				for _, field := range strings.Fields(line) {
					key, value, _ := strings.Cut(field, "=")
					if err := in.set(key, value); err != nil {
						t.Fatalf("%s, case %d: %s: %v", file, i+1, field, err)
					}
				}
			}
			got := in.plan().String()
			rewritten = append(rewritten, head+"----\n"+got)
			if got != want && !*update {
				t.Errorf("%s, case %d:\n%swant\n%sgot\n%s", file, i+1, head, want, got)
			}
		}
		if *update {
			if err := os.WriteFile(file, []byte(strings.Join(rewritten, "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
