// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

var update = flag.Bool("update", false, "rewrite the expected actions in testdata; commit a change only if you can explain it")

// script drives fold and decide by commands, one a line:
//
//	job KEY=VALUE...   a job is created; its replicas meet with meet=1 only
//	recall             a measurement of an earlier job is at hand
//	do                 decide, and the actions have their effect on the log
//	look               decide, and nothing happens
//	end N KIND ...     attempt N ended; step=, round=, error=, reason= say how
//	after DURATION     time passes
//	staged             all of the data is in the store; before only with staging=1
//	resume             another controller takes over
//	state              print how far the job is
type script struct {
	state State
	now   time.Time
	meet  bool
	out   strings.Builder
}

func (s *script) say(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *script) fold(e Event) {
	e.At = s.now
	next, err := fold(s.state, e)
	if err != nil {
		s.say("refused: %v", err)
		return
	}
	s.state = next
}

func (s *script) run(line string) error {
	fields := strings.Fields(line)
	options := map[string]string{}
	for _, f := range fields[1:] {
		if key, value, ok := strings.Cut(f, "="); ok {
			options[key] = value
		}
	}
	switch fields[0] {
	case "job":
		c, err := scriptJob(options)
		if err != nil {
			return err
		}
		s.meet = options["meet"] != ""
		s.fold(Event{Created: &c})
	case "recall":
		s.fold(Event{Probed: &Probed{Cached: true, Probe: job.Probe{KernelSet: "generic", Package: 9 * job.MB, FLOPS: 1e9}}})
	case "do":
		for _, a := range decide(s.state, s.now) {
			s.say("%s", describe(a))
			s.apply(a)
		}
	case "look":
		acts := decide(s.state, s.now)
		for _, a := range acts {
			s.say("%s", describe(a))
		}
		if len(acts) == 0 {
			s.say("nothing")
		}
	case "end":
		n, err := strconv.Atoi(fields[1])
		if err != nil {
			return err
		}
		return s.end(n, platform.Kind(fields[2]), options)
	case "after":
		d, err := time.ParseDuration(fields[1])
		if err != nil {
			return err
		}
		s.now = s.now.Add(d)
	case "staged":
		s.fold(Event{Staged: &Staged{}})
	case "resume":
		s.fold(Event{Resumed: &Resumed{}})
	case "state":
		p := s.state.Progress()
		s.say("%s, round %d of %d, reached %v, pieces %v, %d running, %d attempts, %d obsolete",
			p.Phase, p.Round, p.Rounds, s.state.Reached, s.state.Pieces, p.Running, len(s.state.Attempts), len(s.state.Obsolete))
	default:
		return fmt.Errorf("unknown command")
	}
	return nil
}

func scriptJob(options map[string]string) (c Created, err error) {
	number := func(key string, otherwise int) int {
		n, bad := strconv.Atoi(cmp.Or(options[key], strconv.Itoa(otherwise)))
		err = cmp.Or(err, bad)
		return n
	}
	mb := func(key string, otherwise int) job.Bytes { return job.Bytes(number(key, otherwise)) * job.MB }
	c = Created{
		Job: "script", PlanOnly: options["planonly"] != "", Staging: options["staging"] != "",
		Spec: job.Spec{
			Kind: job.Kind(cmp.Or(options["kind"], "train")), Dataset: "tiny", Epochs: 1, LocalBatch: 4,
			Strategy: job.Strategy(options["strategy"]), Replicas: number("replicas", 2), Rounds: number("rounds", 2), Containers: number("containers", 0), Memory: mb("memory", 0),
		}.WithDefaults(),
		Dataset: job.Dataset{
			Name: "tiny", Digest: "tiny", Height: 8, Width: 8, Channels: 1, Classes: 2, ClassNames: []string{"a", "b"},
			Scale: 1, Train: 64, Test: 16, ShardRecords: 8,
		},
		Platform: "script",
		Limits: job.Limits{
			MemoryMin: mb("min", 128), MemoryMax: mb("max", 512), MemoryStep: job.MB, MemoryDefault: 256 * job.MB,
			TimeoutDefault: time.Minute, TimeoutMax: time.Duration(number("seconds", 0)) * time.Second, PoolMemory: mb("pool", 2048), Processors: 2,
			LocalFiles: options["local"] != "",
		},
	}
	if c.Spec.Sequential() {
		c.Spec.Replicas, c.Spec.LocalBatch, c.Spec.Rounds = 0, 0, 0
	}
	if c.Spec.Kind == job.Infer {
		c.Spec.Output = options["output"]
		c.Model = &Model{Digest: "abc", Spec: []byte(`{"name":"cnn","input":{"h":8,"w":8,"c":1},"classes":2,"layers":[{"kind":"flatten"},{"kind":"dense","units":2}]}`)}
	}
	return c, err
}

func (s *script) end(n int, kind platform.Kind, options map[string]string) (err error) {
	e := Ended{
		Attempt: n, Kind: kind, Message: cmp.Or(options["error"], "it was "+string(kind)),
		Away: options["away"] != "", Undeployed: options["undeployed"] != "",
	}
	if kind == platform.Success || kind == platform.ApplicationError {
		e.Result = &job.TaskResult{Reason: job.Reason(options["reason"])}
	}
	if kind == platform.Success && n < len(s.state.Attempts) {
		e.Message = ""
		t := s.state.Attempts[n].Task
		switch t.Role {
		case job.RoleProbe:
			e.Result.Probe = &job.Probe{KernelSet: "generic", Package: 9 * job.MB, FLOPS: 1e9}
		case job.RoleTrain:
			e.Result.Step = t.To
		case job.RoleAverage:
			e.Result.Digest = "digest"
		case job.RoleEvaluate:
			e.Result.Records, e.Result.Confusion = t.Dataset.Test, [][]int{{8, 1}, {2, 5}}
		}
		if text := options["step"]; text != "" {
			if e.Result.Step, err = strconv.Atoi(text); err != nil {
				return err
			}
			e.Result.Reason = cmp.Or(e.Result.Reason, job.NeedTime)
		}
		if text := options["round"]; text != "" {
			if e.Result.Round, err = strconv.Atoi(text); err != nil {
				return err
			}
			if n := s.state.Numerics; e.Result.Round == n.Rounds() {
				e.Result.Digest = "digest"
			}
		}
		if options["empty"] != "" {
			e.Result = &job.TaskResult{}
		}
	}
	s.fold(Event{Ended: &e})
	return nil
}

// apply has the effect of an action on the log.
func (s *script) apply(a action) {
	switch a := a.(type) {
	case note:
		s.fold(a.event)
	case adopt:
		if !s.meet {
			a.planned.Resources.SpanRounds = 1
		}
		s.fold(Event{Planned: &a.planned})
	case deploy:
		s.fold(Event{Deployed: &Deployed{Action: a.name, Timeout: a.timeout}})
	case invoke:
		s.fold(Event{Invoked: &a.invoked})
	case export:
		s.fold(Event{Exported: &Exported{}})
	case publish:
		s.fold(Event{Published: &Published{Digest: s.state.Digest}})
	case giveUp:
		s.fold(Event{Ended: &Ended{Attempt: a.attempt, Kind: platform.Cancelled, Message: "given up"}})
	case wait:
		s.now = a.until
	}
}

func describe(a action) string {
	switch a := a.(type) {
	case note:
		switch e := a.event; {
		case e.Finished != nil:
			return strings.TrimRight(fmt.Sprintf("finished %s: %s", e.Finished.Status, e.Finished.Error), ": ")
		case e.Replanned != nil:
			r := e.Replanned.Resources
			text := fmt.Sprintf("replanned %d: %d containers of %v, slices of %v, pieces of %d, %d rounds an invocation", r.Revision, r.Containers, r.Memory, r.Budget, r.MicroBatch, r.SpanRounds)
			if r.Budget == 0 {
				text += fmt.Sprintf(", timeout %v", r.Timeout)
			}
			return text
		}
		return "note of another event"
	case adopt:
		r := a.planned.Resources
		text := fmt.Sprintf("planned: %d containers of %v, slices of %v, %d pieces", r.Containers, r.Memory, r.Budget, r.InferPieces)
		if n := a.planned.Numerics; n != nil {
			text += fmt.Sprintf("; %d replicas, %d rounds of %d", n.Replicas, n.Rounds(), n.RoundSteps)
		}
		return text
	case deploy:
		text := fmt.Sprintf("deploy %s of %v, timeout %v", a.name, a.memory, a.timeout)
		if a.warm > 0 {
			text += fmt.Sprintf(", %d to be warm", a.warm)
		}
		return text
	case invoke:
		t := a.invoked.Task
		text := fmt.Sprintf("invoke %d in %s: %s", a.invoked.Attempt, a.invoked.Action, unitOf(t))
		switch t.Role {
		case job.RoleTrain, job.RoleAverage:
			text += fmt.Sprintf(", steps %d to %d", t.From, t.To)
			if t.Whole {
				text += ", whole"
			}
			if t.Meet {
				text += ", meeting"
			}
		case job.RoleInfer:
			text += fmt.Sprintf(", shards %d to %d", t.ShardFrom, t.ShardTo)
			if t.Predict {
				text += ", predictions kept"
			}
		case job.RoleEvaluate:
			text += fmt.Sprintf(", %d pieces", t.Pieces)
		}
		return text
	case export:
		return "export"
	case publish:
		return "publish"
	case giveUp:
		return fmt.Sprintf("give up %d", a.attempt)
	case wait:
		return "wait until " + a.until.Format("15:04:05.000")
	}
	return "unknown action"
}

// TestScenarios runs the scripts of testdata: paragraphs of commands, then ----
// and all that they print.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := script{now: time.Date(2020, 1, 1, 12, 0, 0, 0, time.UTC)}
		var rewritten []string
		for i, paragraph := range strings.Split(strings.TrimSpace(string(raw)), "\n\n") {
			head, want, _ := strings.Cut(paragraph+"\n", "----\n")
			s.out.Reset()
			for line := range strings.Lines(head) {
				if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
					continue
				}
				if strings.HasPrefix(line, "job") {
					s.state = State{}
				}
				if err := s.run(line); err != nil {
					t.Fatalf("%s, paragraph %d: %s: %v", file, i+1, line, err)
				}
			}
			rewritten = append(rewritten, head+"----\n"+s.out.String())
			if got := s.out.String(); got != want && !*update {
				t.Errorf("%s, paragraph %d:\n%swant\n%sgot\n%s", file, i+1, head, want, got)
			}
		}
		if *update {
			if err := os.WriteFile(file, []byte(strings.Join(rewritten, "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
