// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"strings"
	"testing"
	"time"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/platform"
)

// TestStrategies_OneModel: one worker and brute force take the same steps, so
// they give the same model.
func TestStrategies_OneModel(t *testing.T) {
	single, brute := golden(t, recipe{strategy: job.Single, epochs: 2}), golden(t, recipe{strategy: job.BruteForce, epochs: 2})
	if single != brute {
		t.Errorf("single gives the model %s, brute force %s", single, brute)
	}
}

// TestBruteForce_CountsItsFailures: every failed container is counted and paid
// for, each attempt starts at the first step, and memory and time grow by what
// was missing.
func TestBruteForce_CountsItsFailures(t *testing.T) {
	r := recipe{strategy: job.BruteForce, epochs: 2}
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		// The calls of brute force are the same each time.
		failures := []fault{outOfMemory, timedOut, timedOut, lostBefore}
		w := newWorld(t, func(t job.Task, nth int, _ job.Bytes) fault {
			if t.Role == job.RoleTrain && nth < len(failures) {
				return failures[nth]
			}
			return none
		})
		record, err := control.Run(t.Context(), w.config(), r.created())
		if err != nil {
			t.Fatal(err)
		}
		w.checkEnded(record, job.Succeeded, digest)
		m := record.Metrics
		if m.FailedContainers != len(failures) || m.FailureRate != float64(len(failures))/float64(m.Containers) || m.Handovers != 0 {
			t.Errorf("%d of %d containers failed, rate %v, %d hand-overs; want %d failures", m.FailedContainers, m.Containers, m.FailureRate, m.Handovers, len(failures))
		}
		if record.Strategy != job.BruteForce {
			t.Errorf("the record is of strategy %q", record.Strategy)
		}
		var limits []job.Bytes
		var cost float64
		for _, a := range record.Actions {
			cost += float64(a.MemoryLimit) / float64(job.GB) * (a.DurationSeconds + a.InitSeconds)
			if a.Role == job.RoleTrain {
				limits = append(limits, a.MemoryLimit)
			}
		}
		if want := []job.Bytes{256 * job.MB, 512 * job.MB, 512 * job.MB, 512 * job.MB, 512 * job.MB}; len(limits) != len(want) || limits[0] != want[0] || limits[1] != want[1] || limits[4] != want[4] {
			t.Errorf("limits %v; want %v", limits, want)
		}
		if diff := cost - m.GBSeconds; diff > 1e-9 || diff < -1e-9 {
			t.Errorf("%v GB-seconds; the invocations cost %v", m.GBSeconds, cost)
		}
		var timeouts []time.Duration
		for _, e := range w.history() {
			if e.Invoked != nil && e.Invoked.Task.Role == job.RoleTrain && (e.Invoked.Task.From != 0 || !e.Invoked.Task.Whole || e.Invoked.Task.Budget != 0) {
				t.Errorf("an attempt is %+v", e.Invoked.Task)
			}
			if e.Replanned != nil {
				timeouts = append(timeouts, e.Replanned.Resources.Timeout)
			}
		}
		if len(timeouts) != 3 || timeouts[0] != 60*time.Second || timeouts[1] != 70*time.Second || timeouts[2] != 80*time.Second {
			t.Errorf("time limits after failures are %v", timeouts)
		}
	})
}

// TestBruteForce_Ends: at the platform's maximum it fails and says so.
func TestBruteForce_Ends(t *testing.T) {
	for _, c := range []struct {
		fault    fault
		attempts int // of training: from 256 to 512 MB, from 60 to 300 s
		says     []string
	}{
		{outOfMemory, 2, []string{"512 MB", "the most that the platform allows"}},
		{timedOut, 25, []string{"5m0s", "the most that the platform allows"}},
	} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, func(t job.Task, _ int, _ job.Bytes) fault {
				if t.Role == job.RoleTrain {
					return c.fault
				}
				return none
			})
			record, err := control.Run(t.Context(), w.config(), recipe{strategy: job.BruteForce, epochs: 1}.created())
			if err != nil {
				t.Fatal(err)
			}
			w.checkEnded(record, job.Failed, "")
			for _, part := range c.says {
				if !strings.Contains(record.Error, part) {
					t.Errorf("%q does not say %q", record.Error, part)
				}
			}
			if record.Metrics.FailedContainers != c.attempts {
				t.Errorf("%d containers failed; want %d", record.Metrics.FailedContainers, c.attempts)
			}
		})
	}
}

// TestSingle_IsOneCall: all steps are one invocation, without a hand-over, and
// the memory is what was predicted.
func TestSingle_IsOneCall(t *testing.T) {
	r := recipe{strategy: job.Single, epochs: 2}
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		w.cloud.limits.MemoryMin, w.cloud.limits.MemoryMax, w.cloud.limits.PoolMemory = job.MB, 16*job.GB, 16*job.GB
		w.cloud.limits.TimeoutMax = 1000 * time.Hour
		record, err := control.Run(t.Context(), w.config(), r.created())
		if err != nil {
			t.Fatal(err)
		}
		w.checkEnded(record, job.Succeeded, digest)
		calls := map[job.Role]int{}
		for _, a := range record.Actions {
			calls[a.Role]++
			if a.Outcome != string(platform.Success) {
				t.Errorf("%s: %s", a.Role, a.Outcome)
			}
			if a.Role != job.RoleProbe && (a.MemoryLimit < a.Predicted || a.MemoryLimit > 11*job.MB) {
				t.Errorf("%s: predicted %v, limit %v", a.Role, a.Predicted, a.MemoryLimit)
			}
		}
		for _, role := range []job.Role{job.RoleProbe, job.RoleTrain, job.RoleAverage, job.RoleInfer, job.RoleEvaluate} {
			if calls[role] != 1 {
				t.Errorf("%d calls of %s", calls[role], role)
			}
		}
	})
}
