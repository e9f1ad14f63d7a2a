// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/store"
)

// anyEvent draws events that need not fit each other.
func anyEvent(t *rapid.T) Event {
	small := func(name string) int { return rapid.IntRange(-1, 4).Draw(t, name) }
	task := job.Task{
		Role: rapid.SampledFrom([]job.Role{"", job.RoleProbe, job.RoleTrain, job.RoleAverage, job.RoleInfer, job.RoleEvaluate}).Draw(t, "role"),
		Job:  "script", Replica: small("replica"), From: small("from"), To: small("to"), Piece: small("piece"), Pieces: small("pieces"),
	}
	if rapid.Bool().Draw(t, "dataset") {
		task.Dataset = &job.Dataset{Classes: small("classes"), Test: small("test")}
	}
	switch rapid.IntRange(0, 9).Draw(t, "event") {
	case 0:
		return Event{Probed: &Probed{Probe: job.Probe{KernelSet: "k", Package: job.MB}}}
	case 1:
		p := Planned{Resources: job.Resources{Memory: job.MB, Containers: small("containers"), InferPieces: small("inferPieces"), Revision: small("revision") / 4}}
		if rapid.Bool().Draw(t, "numerics") {
			p.Numerics = &job.Numerics{Replicas: small("replicas"), Steps: small("steps"), RoundSteps: small("roundSteps")}
		}
		return Event{Planned: &p}
	case 2:
		return Event{Replanned: &Replanned{Resources: job.Resources{Memory: job.MB, Containers: 1, Revision: small("revision")}}}
	case 3:
		return Event{Deployed: &Deployed{Action: "m1"}}
	case 4, 5:
		return Event{Invoked: &Invoked{Attempt: small("attempt"), Task: task, Revision: small("revision")}}
	case 6, 7:
		e := Ended{Attempt: small("attempt"), Kind: rapid.SampledFrom([]platform.Kind{platform.Success, platform.Success, platform.Lost, platform.OutOfMemory, "unheard of"}).Draw(t, "kind")}
		if rapid.Bool().Draw(t, "result") {
			e.Result = &job.TaskResult{Step: small("step"), Digest: "d", Records: small("records"), Probe: &job.Probe{KernelSet: "k", Package: 1}}
			for range max(small("rows"), 0) {
				e.Result.Confusion = append(e.Result.Confusion, make([]int, max(small("columns"), 0)))
			}
		}
		return Event{Ended: &e}
	case 8:
		return Event{Resumed: &Resumed{}}
	default:
		return Event{}
	}
}

// A log of any other program is an error, never a panic, and a state that fold
// accepts can be decided on, reported and written down.
func TestFold_AnyEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]string{"train", "infer"}).Draw(t, "kind")
		created, err := scriptJob(map[string]string{"kind": kind})
		if err != nil {
			t.Fatal(err)
		}
		s, err := fold(State{}, Event{Created: &created})
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(0, 30).Draw(t, "events") {
			next, err := fold(s, anyEvent(t))
			if err != nil {
				continue // fold has refused it before it changed anything that s holds
			}
			s = next
			if s.Running < 0 || s.Running > len(s.Attempts) {
				t.Fatalf("%d of %d attempts run", s.Running, len(s.Attempts))
			}
			acts := decide(s, s.UpdatedAt)
			if again := decide(s, s.UpdatedAt); !reflect.DeepEqual(acts, again) {
				t.Fatalf("the same state, %v and %v", acts, again)
			}
			s.Progress()
			if _, err := json.Marshal(s.Record()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestFold_Refuses(t *testing.T) {
	created, err := scriptJob(nil)
	if err != nil {
		t.Fatal(err)
	}
	infer, err := scriptJob(map[string]string{"kind": "infer"})
	if err != nil {
		t.Fatal(err)
	}
	infer.Model = nil
	badID, badSpec, badData := created, created, created
	badID.Job, badSpec.Spec.Epochs, badData.Dataset.ShardRecords = "../x", -1, 0
	for name, events := range map[string][]Event{
		"nothing created":   {{Deployed: &Deployed{}}},
		"created twice":     {{Created: &created}, {Created: &created}},
		"no event":          {{Created: &created}, {}},
		"bad id":            {{Created: &badID}},
		"bad spec":          {{Created: &badSpec}},
		"bad data set":      {{Created: &badData}},
		"no model":          {{Created: &infer}},
		"after the end":     {{Created: &created}, {Finished: &Finished{}}, {Deployed: &Deployed{}}},
		"finished twice":    {{Created: &created}, {Finished: &Finished{}}, {Finished: &Finished{}}},
		"replan of no plan": {{Created: &created}, {Replanned: &Replanned{Resources: job.Resources{Revision: 1}}}},
	} {
		var s State
		var err error
		for i, e := range events {
			if s, err = fold(s, e); (err == nil) != (i < len(events)-1) {
				t.Errorf("%s: event %d: %v", name, i, err)
			}
		}
	}
}

// Events that happened together go to as few entries as fit, in order, none is
// lost, and no entry is more than a store takes.
func TestEncodeSome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var events []Event
		for range rapid.IntRange(1, 8).Draw(t, "events") {
			events = append(events, Event{
				At:    time.Unix(int64(len(events)), 0).UTC(),
				Ended: &Ended{Attempt: len(events), Message: strings.Repeat("x", rapid.IntRange(0, entryBytes/3).Draw(t, "size"))},
			})
		}
		var back []Event
		for rest := events; len(rest) > 0; {
			entry, count, err := encodeSome(rest)
			if err != nil || count < 1 || len(entry) > store.MaxEntryBytes {
				t.Fatalf("%d events in %d bytes: %v", count, len(entry), err)
			}
			if count < len(rest) {
				if longer, _, err := encodeSome(rest[count : count+1]); err != nil || len(entry)+len(longer) <= entryBytes {
					t.Fatalf("the next event would have fitted: %d and %d bytes, %v", len(entry), len(longer), err)
				}
			}
			some, err := decode(entry)
			if err != nil {
				t.Fatal(err)
			}
			back, rest = append(back, some...), rest[count:]
		}
		if !reflect.DeepEqual(back, events) {
			t.Fatalf("%d events came back as %d", len(events), len(back))
		}
	})
	if _, err := decode([]byte("{")); err == nil {
		t.Error("half an entry was read")
	}
}

// The record adds up what containers took, whatever became of them.
func TestRecord_Metrics(t *testing.T) {
	s := script{now: time.Date(2020, 1, 1, 12, 0, 0, 0, time.UTC)}
	for _, line := range []string{"job", "do", "do"} {
		if err := s.run(line); err != nil {
			t.Fatal(err)
		}
	}
	usage := func(container string, peak job.Bytes, d time.Duration) platform.Usage {
		return platform.Usage{Container: container, Cold: container == "b", Warmed: container == "a" && d == 3*time.Second, Limit: 128 * job.MB, Peak: peak, Init: time.Second, Duration: d}
	}
	probe := &job.TaskResult{Probe: &job.Probe{KernelSet: "k", Package: 9 * job.MB}}
	s.fold(Event{Ended: &Ended{Attempt: 0, Kind: platform.Success, Result: probe, Usage: usage("a", 10, 3*time.Second)}})
	for _, line := range []string{"do", "do", "after 10s"} {
		if err := s.run(line); err != nil {
			t.Fatal(err)
		}
	}
	s.fold(Event{Ended: &Ended{Attempt: 1, Kind: platform.Success, Result: &job.TaskResult{Step: 2, Reason: job.NeedTime}, Usage: usage("a", 30, 7*time.Second)}})
	s.fold(Event{Ended: &Ended{Attempt: 2, Kind: platform.OutOfMemory, Usage: usage("b", 128*job.MB, 3*time.Second)}})
	got := s.state.Record().Metrics
	want := job.Metrics{
		Containers: 2, MemoryLimit: 256 * job.MB, MemoryPeak: 30 + 128*job.MB, GBSeconds: 16.0 / 8, DurationSeconds: 10, InitSeconds: 3,
		FailedContainers: 1, Handovers: 1, FailureRate: 0.5, ColdStarts: 1, Warmed: 1,
	}
	if got != want {
		t.Errorf("metrics %+v\nwant    %+v", got, want)
	}

	// Another controller's container is another one, whatever its name.
	next := len(s.state.Attempts)
	if err := s.run("resume"); err != nil {
		t.Fatal(err)
	}
	for range 5 { // to plan, to deploy, to invoke
		if len(s.state.Attempts) == next {
			if err := s.run("do"); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.fold(Event{Ended: &Ended{Attempt: next, Kind: platform.Lost, Usage: usage("a", 20, time.Second)}})
	if got := s.state.Record().Metrics; got.Containers != 3 || got.FailedContainers != 2 || got.MemoryPeak != 50+128*job.MB {
		t.Errorf("after a resume: metrics %+v; want 3 containers", got)
	}

	// A controller that is killed leaves no word of the containers that were busy.
	s.state = State{}
	for _, line := range []string{"job", "recall", "do", "do", "do"} {
		if err := s.run(line); err != nil {
			t.Fatal(err)
		}
	}
	for when, line := range map[string]string{"while they run": "look", "after a resume": "resume"} {
		if err := s.run(line); err != nil {
			t.Fatal(err)
		}
		if got := s.state.Record().Metrics; got.Containers != 2 || got.MemoryLimit != 256*job.MB || got.FailedContainers != 0 {
			t.Errorf("%s: metrics %+v; want 2 containers", when, got)
		}
	}
	if (State{}).Record().Status != job.Running {
		t.Error("a job that has not begun has ended")
	}
}
