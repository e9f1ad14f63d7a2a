// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/platform"
)

// TestOutOfMemory: containers that are too small are replaced by larger ones,
// and the model is the same.
func TestOutOfMemory(t *testing.T) {
	r := oneByOne
	digest := golden(t, r)
	for _, role := range []job.Role{job.RoleProbe, job.RoleTrain, job.RoleAverage, job.RoleInfer, job.RoleEvaluate} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, func(t job.Task, _ int, memory job.Bytes) fault {
				if t.Role == role && memory < 200*job.MB {
					return outOfMemory
				}
				return none
			})
			record, err := control.Run(t.Context(), w.config(), r.created())
			if err != nil {
				t.Fatal(err)
			}
			w.checkEnded(record, job.Succeeded, digest)
			if record.Metrics.FailedContainers == 0 {
				t.Errorf("%s: no container failed, so the test tests nothing", role)
			}
			var predicted job.Bytes
			for _, a := range record.Actions {
				if a.Role == role && a.Outcome == string(platform.OutOfMemory) {
					predicted = a.Predicted
					break // later ones have learned
				}
			}
			if predicted <= 0 || predicted > 128*job.MB {
				t.Errorf("%s: a prediction of %v was reported for the container that was too small", role, predicted)
			}
		})
	}
}

// TestEnds: what cannot succeed fails, at once, with a text that says what to
// do, and frees everything.
func TestEnds(t *testing.T) {
	always := func(role job.Role, f fault) chooser {
		return func(t job.Task, _ int, _ job.Bytes) fault {
			if t.Role == role {
				return f
			}
			return none
		}
	}
	tests := map[string]struct {
		choose  chooser
		change  func(c *control.Created)
		cloud   func(c *cloud)
		want    []string
		atMost  int           // attempts of the role that fails
		virtual time.Duration // that it may take
		role    job.Role
	}{
		"memory fixed": {
			choose: always(job.RoleTrain, outOfMemory), role: job.RoleTrain, atMost: 6, // in pieces of 4, 2 and 1 records
			change: func(c *control.Created) { c.Spec.Memory = 200 * job.MB },
			want:   []string{"train", "200 MB", "--memory", "raise it or leave it out"},
		},
		"memory never enough": {
			choose: always(job.RoleTrain, outOfMemory), role: job.RoleTrain, atMost: 14,
			want: []string{"train", "512 MB", "one by one", "smaller model"},
		},
		"worker too large": {
			choose: always(job.RoleProbe, outOfMemory), role: job.RoleProbe, atMost: 2,
			want: []string{"infeasible", "512 MB"},
		},
		"no time to probe": {
			choose: always(job.RoleProbe, timedOut), role: job.RoleProbe, atMost: 1,
			want: []string{"probe", "--timeout"},
		},
		"no time to train": {
			choose: always(job.RoleTrain, timedOut), role: job.RoleTrain, atMost: 24, virtual: time.Hour,
			want: []string{"train", "--timeout"},
		},
		"no time to average": {
			choose: always(job.RoleAverage, timedOut), role: job.RoleAverage, atMost: 1,
			change: func(c *control.Created) { c.Spec.Containers = 1 },
			want:   []string{"average", "--timeout"},
		},
		"always lost": {
			choose: always(job.RoleInfer, lostBefore), role: job.RoleInfer, atMost: 8,
			want: []string{"infer", "gave up after 4 failures in a row"},
		},
		"never an answer": {
			choose: always(job.RoleEvaluate, garbage), role: job.RoleEvaluate, atMost: 4,
			want: []string{"evaluate", "no task result", "gave up"},
		},
		"a step of no progress": {
			choose: always(job.RoleTrain, nonsense), role: job.RoleTrain, atMost: 8,
			want: []string{"train", "does not fit its task", "gave up"},
		},
		"a probe of nothing": {
			choose: always(job.RoleProbe, nonsense), role: job.RoleProbe, atMost: 4,
			want: []string{"probe", "nothing was measured", "gave up"},
		},
		"always throttled": {
			choose: always(job.RoleTrain, throttled), role: job.RoleTrain, atMost: 120, virtual: 5 * time.Minute,
			want: []string{"throttled", "60 times in a row"},
		},
		"training diverges": {
			role:   job.RoleTrain,
			choose: noFaults, atMost: 6,
			change: func(c *control.Created) { c.Spec.LearningRate = 10; c.Dataset.Scale = 1e30 },
			want:   []string{"train replica", "in step", "of replica", "learning rate"},
		},
		"refused": {
			choose: noFaults, role: job.RoleTrain,
			cloud: func(c *cloud) { c.refuse = fmt.Errorf("no such thing: %w", platform.ErrRefused) },
			want:  []string{"no such thing"},
		},
		"infeasible": {
			choose: noFaults, role: job.RoleTrain,
			change: func(c *control.Created) { c.Spec.Memory = job.GB },
			want:   []string{"infeasible", "1 GB", "512 MB", "--memory"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, test.choose)
				if test.cloud != nil {
					test.cloud(w.cloud)
				}
				created := recipes[0].created()
				if test.change != nil {
					test.change(&created)
				}
				began := time.Now()
				record, err := control.Run(t.Context(), w.config(), created)
				if err != nil {
					t.Fatal(err)
				}
				w.checkEnded(record, job.Failed, "")
				for _, want := range test.want {
					if !strings.Contains(record.Error, want) {
						t.Errorf("error %q does not mention %q", record.Error, want)
					}
				}
				tries := 0
				for _, a := range record.Actions {
					if a.Role == test.role {
						tries++
					}
				}
				if tries > test.atMost {
					t.Errorf("%d calls, want at most %d", tries, test.atMost)
				}
				if took := time.Since(began); took > max(test.virtual, 2*time.Minute) {
					t.Errorf("it took %v to fail", took)
				}
			})
		})
	}
}

// TestTimeouts: slices that overrun are halved until they fit.
func TestTimeouts(t *testing.T) {
	r := recipes[0]
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(t job.Task, _ int, _ job.Bytes) fault {
			if t.Role == job.RoleTrain && t.Budget > 8*time.Second {
				return timedOut
			}
			return none
		})
		record, err := control.Run(t.Context(), w.config(), r.created())
		if err != nil {
			t.Fatal(err)
		}
		w.checkEnded(record, job.Succeeded, digest)
		budget := 30 * time.Second // half of the default time limit
		for _, e := range w.history() {
			if e.Replanned == nil {
				continue
			}
			if budget /= 2; e.Replanned.Resources.Budget != budget {
				t.Errorf("a budget of %v, want %v", e.Replanned.Resources.Budget, budget)
			}
		}
		if budget != 7500*time.Millisecond {
			t.Errorf("the last budget is %v, want 7.5s", budget)
		}
	})
}

// TestRestartsAreNoFailures: a job whose controller dies during every attempt
// goes on all the same.
func TestRestartsAreNoFailures(t *testing.T) {
	r := oneByOne
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		for restart := range 20 {
			life := newLife()
			cfg := control.Config{
				Platform: &mortal{Platform: w.cloud, life: life},
				Store:    &brittle{Store: w.store.Share(), gate: func(string) error { return life.alive() }},
			}
			cfg.Observe = func(s control.State) {
				if s.Round == 1 && s.Running == 1 { // in the second round
					life.kill()
				}
			}
			run := func() error { _, err := control.Resume(t.Context(), cfg, jobID); return err }
			if restart == 0 {
				run = func() error { _, err := control.Run(t.Context(), cfg, r.created()); return err }
			}
			if err := run(); !errors.Is(err, errDead) {
				t.Fatalf("controller %d: %v, want its death", restart, err)
			}
			w.cloud.lose()
		}
		w.checkEnded(w.resume(), job.Succeeded, digest)
	})
}
