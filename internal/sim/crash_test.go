// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/points"
	"disdel/internal/store"
)

// crashRecipes have all that a job can have: hand-overs (see handOvers), several
// replicas and rounds. In the first replicas meet, in the second they do not, and
// in the third they exchange gradients.
var crashRecipes = []recipe{recipes[0], oneByOne, stepwise}

// handOvers makes the first try of every slice of replica 0 stop early.
func handOvers(t job.Task, nth int, _ job.Bytes) fault {
	if t.Role == job.RoleTrain && t.Replica == 0 && nth == 0 {
		return handOver
	}
	return none
}

// TestCrashPoints kills the controller after every single append, and before
// and after every call of the platform. A new one, with or without the platform
// of the old one still running its calls, gets the same model.
func TestCrashPoints(t *testing.T) {
	for _, r := range points.Some(crashRecipes) {
		digest := golden(t, r)
		for _, where := range []string{"append", "platform"} {
			for _, lose := range points.Some([]bool{true, false}) {
				for at, more := 1, true; more; at += points.Stride {
					bubble(t, func(t *testing.T) { more = crash(t, r, where, lose, at, digest) })
					if !more && at < 12 {
						t.Errorf("only %d points of %s to die at", at-1, where)
					}
					if t.Failed() {
						t.Fatalf("%+v, killed at %s %d, its calls lost: %v", r, where, at, lose)
					}
				}
			}
		}
	}
}

// crash returns false if the job ended before the point came.
func crash(t *testing.T, r recipe, where string, lose bool, at int, digest string) (reached bool) {
	w := newWorld(t, handOvers)
	life := newLife()
	appends := 0
	cfg := control.Config{
		Store: &brittle{
			Store: w.store.Share(),
			gate:  func(string) error { return life.alive() },
			appended: func() {
				if appends++; where == "append" && appends == at {
					life.kill()
				}
			},
		},
	}
	calls := &mortal{Platform: w.cloud, life: life}
	if where == "platform" {
		calls.killAt = at
	}
	cfg.Platform = calls
	record, err := control.Run(t.Context(), cfg, r.created())
	if life.alive() == nil {
		if err != nil {
			t.Errorf("run to the end: %v", err)
		}
		w.checkEnded(record, job.Succeeded, digest)
		return false
	}
	if err == nil {
		t.Errorf("a killed controller reports %s and no error", record.Status)
	}
	checkHistory(t, w.history())
	if lose {
		w.cloud.lose()
	}
	w.checkEnded(w.resume(), job.Succeeded, digest)
	return true
}

// TestFaultSweep fails the first, second, third ... operation of the
// controller's store until a run meets no fault. Every run ends, and what it
// leaves can be resumed.
func TestFaultSweep(t *testing.T) {
	for _, r := range points.Some(crashRecipes) {
		faultSweep(t, r, golden(t, r))
	}
}

func faultSweep(t *testing.T, r recipe, digest string) {
	for _, kind := range points.Some([]struct {
		err   error
		after bool
	}{
		{store.ErrUnavailable, false},
		{store.ErrUnavailable, true},
		{errors.New("a fault of no known kind"), false},
		{errors.New("a fault of no known kind"), true},
		{store.ErrCorrupt, true},
	}) {
		failed, survived := 0, 0
		for at, more := 1, true; more; at += min(points.Stride, 5) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, handOvers)
				cfg := w.config()
				faulty := &brittle{Store: w.store.Share(), failAt: at, failWith: kind.err, after: kind.after}
				cfg.Store = faulty
				record, err := control.Run(t.Context(), cfg, r.created())
				if more = faulty.failed(); !more && err != nil {
					t.Errorf("without a fault: %v", err)
				}
				if err != nil {
					failed++
					if !errors.Is(err, kind.err) {
						t.Errorf("the error does not say what happened: %v", err)
					}
					record = w.resume()
				} else {
					survived++
				}
				w.checkEnded(record, job.Succeeded, digest)
			})
			if t.Failed() {
				t.Fatalf("operation %d fails with %q, done all the same: %v", at, kind.err, kind.after)
			}
		}
		if failed == 0 || survived < 2 {
			t.Errorf("faults of %q: %d runs failed, %d survived; the sweep has no teeth", kind.err, failed, survived)
		}
	}
}

// TestCancel interrupts the job at every event and between them: it ends as
// cancelled and leaves nothing behind, unless it had ended before.
func TestCancel(t *testing.T) {
	digest := golden(t, crashRecipes[1])
	for at, more := 1, true; more; at++ {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, handOvers)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			events := 0
			cfg := w.config()
			cfg.Observe = func(control.State) {
				if events++; events == at {
					cancel()
				}
			}
			record, err := control.Run(ctx, cfg, crashRecipes[1].created())
			more = ctx.Err() != nil
			switch {
			case err != nil:
				t.Errorf("cancelled: %v", err)
			case record.Status == job.Succeeded && more && events > at+1:
				t.Errorf("the job went on for %d events", events-at)
			case record.Status == job.Succeeded:
				w.checkEnded(record, job.Succeeded, digest)
			default:
				w.checkEnded(record, job.Cancelled, "")
				if !slices.Contains(w.cloud.removed, "disdel-"+string(jobID)) {
					t.Error("the platform was not asked to remove the job's package")
				}
				if _, err := control.Resume(t.Context(), w.config(), jobID); !errors.Is(err, control.ErrEnded) {
					t.Errorf("resume: %v, want ErrEnded", err)
				}
			}
		})
		if t.Failed() {
			t.Fatalf("cancelled at event %d", at)
		}
	}
}

// TestResumeTidiesUp: an ended job whose objects could not be deleted is tidied
// up by Resume, which still says that it has ended.
func TestResumeTidiesUp(t *testing.T) {
	digest := golden(t, crashRecipes[1])
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		refuse := fmt.Errorf("no deletes: %w", store.ErrUnavailable)
		cfg := w.config()
		cfg.Store = &brittle{Store: w.store.Share(), gate: func(op string) error {
			if op == "delete" {
				return refuse
			}
			return nil
		}}
		record, err := control.Run(t.Context(), cfg, crashRecipes[1].created())
		if !errors.Is(err, refuse) || record.Status != job.Succeeded {
			t.Fatalf("run: %s, %v; want a job that succeeded and the error of the store", record.Status, err)
		}
		if _, err := control.Resume(t.Context(), w.config(), jobID); !errors.Is(err, control.ErrEnded) {
			t.Fatalf("resume: %v, want ErrEnded", err)
		}
		w.checkEnded(record, job.Succeeded, digest)
	})
}
