// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/points"
	"disdel/internal/store"
)

// calls counts a record's invocations of a role.
func calls(record job.Record, role job.Role) (n int) {
	for _, a := range record.Actions {
		if a.Role == role {
			n++
		}
	}
	return n
}

func outcomes(record job.Record, outcome string) (n int) {
	for _, a := range record.Actions {
		if a.Outcome == outcome {
			n++
		}
	}
	return n
}

// TestMeet_OneInvocation: where all replicas run at once, one invocation each
// goes through all rounds, nobody is called to average, and the model is that of
// one round an invocation.
func TestMeet_OneInvocation(t *testing.T) {
	if met, alone := golden(t, recipes[0]), golden(t, oneByOne); met != alone {
		t.Errorf("model %s; one by one %s", met, alone)
	}
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		record, err := control.Run(t.Context(), w.config(), recipes[0].created())
		if err != nil {
			t.Fatal(err)
		}
		if trained, averaged := calls(record, job.RoleTrain), calls(record, job.RoleAverage); trained != 2 || averaged != 0 || record.Rounds < 3 {
			t.Errorf("%d rounds in %d train and %d average calls; want 2 and 0", record.Rounds, trained, averaged)
		}
	})
}

// TestMeet_Faults: whatever happens to the first calls of one of three replicas
// that meet, the others wait or hand over, and the model is the same.
func TestMeet_Faults(t *testing.T) {
	r := recipe{replicas: 3, rounds: 4, epochs: 2}
	digest := golden(t, r)
	for f := none; f < faultKinds; f += fault(min(points.Stride, 3)) {
		for times := 1; times <= points.Count(3); times++ {
			bubble(t, func(t *testing.T) {
				var left atomic.Int32
				left.Store(int32(times))
				w := newWorld(t, func(t job.Task, _ int, _ job.Bytes) fault {
					if t.Role == job.RoleTrain && t.Replica == 1 && left.Add(-1) >= 0 {
						return f
					}
					return none
				})
				record, err := control.Run(t.Context(), w.config(), r.created())
				if err != nil {
					t.Fatal(err)
				}
				w.checkEnded(record, job.Succeeded, digest)
				if f == timedOut && outcomes(record, string(job.NeedPeer)) < 2 {
					t.Error("the others did not say that they need their peer")
				}
			})
			if t.Failed() {
				t.Fatalf("fault %d, %d times", f, times)
			}
		}
	}
}

// TestMeet_NotNeededAnyMore: a replica stores all its states and its answer never
// comes; another one has said that the model is trained. The job ends without
// the answer, and its record counts the call.
func TestMeet_NotNeededAnyMore(t *testing.T) {
	r := recipes[0]
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(t job.Task, _ int, _ job.Bytes) fault {
			if t.Role == job.RoleTrain && t.Replica == 0 {
				return silent
			}
			return none
		})
		began := time.Now()
		record, err := control.Run(t.Context(), w.config(), r.created())
		if err != nil {
			t.Fatal(err)
		}
		w.checkEnded(record, job.Succeeded, digest)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		if trained, cancelled := calls(record, job.RoleTrain), outcomes(record, string(platform.Cancelled)); trained != 2 || cancelled != 1 {
			t.Errorf("%d train calls, %d cancelled; want 2, and 1 of them cancelled: %+v", trained, cancelled, record.Actions)
		}
	})
}

// TestMeet_LostCalls: calls that are taken and never run are given up, and the
// rounds stay together; a replica that loses two in a row has rounds taken one by
// one.
func TestMeet_LostCalls(t *testing.T) {
	r := recipe{replicas: 3, rounds: 4, epochs: 2}
	digest := golden(t, r)
	for _, lost := range points.Some([]int{2, 1, 0}) {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, func(t job.Task, nth int, _ job.Bytes) fault {
				if t.Role == job.RoleTrain && t.Replica == 1 && nth < lost {
					return unstarted
				}
				return none
			})
			record, err := control.Run(t.Context(), w.config(), r.created())
			if err != nil {
				t.Fatal(err)
			}
			w.checkEnded(record, job.Succeeded, digest)
			if n := calls(record, job.RoleAverage); (n > 0) != (lost > 1) {
				t.Errorf("%d lost calls: %d calls to average", lost, n)
			}
			if n := outcomes(record, string(platform.Cancelled)); lost == 1 && n != 1 {
				t.Errorf("%d lost calls: %d given up", lost, n)
			}
		})
	}
}

// TestMeet_HandOvers: slices that end after a second, in the middle of rounds and
// at their ends, change nothing.
func TestMeet_HandOvers(t *testing.T) {
	r := recipe{replicas: 3, rounds: 4, epochs: 2}
	digest := golden(t, r)
	for _, delay := range []time.Duration{100 * time.Millisecond, 400 * time.Millisecond, 900 * time.Millisecond, 3 * time.Second} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, func(t job.Task, _ int, _ job.Bytes) fault {
				if t.Role == job.RoleTrain {
					return handOver
				}
				return none
			})
			w.cloud.delay = delay
			record, err := control.Run(t.Context(), w.config(), r.created())
			if err != nil {
				t.Fatal(err)
			}
			w.checkEnded(record, job.Succeeded, digest)
			if record.Metrics.Handovers < 3 {
				t.Errorf("with reads of %v: %d hand-overs", delay, record.Metrics.Handovers)
			}
		})
	}
}

// TestMeet_OneAtATime: a platform that promises to run all replicas at once and
// does not costs some waiting, until rounds are taken one by one.
func TestMeet_OneAtATime(t *testing.T) {
	r := recipes[4]
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		w.cloud.single = make(chan struct{}, 1)
		began := time.Now()
		record, err := control.Run(t.Context(), w.config(), r.created())
		if err != nil {
			t.Fatal(err)
		}
		w.checkEnded(record, job.Succeeded, digest)
		if took := time.Since(began); took > 3*time.Minute {
			t.Errorf("it took %v", took)
		}
		replans := 0
		for _, e := range w.history() {
			if e.Replanned != nil {
				replans++
				if e.Replanned.Resources.SpanRounds != 1 || !strings.Contains(strings.Join(e.Replanned.Resources.Explanation, " "), "one an invocation") {
					t.Errorf("replanned to %d rounds an invocation: %q", e.Replanned.Resources.SpanRounds, e.Replanned.Resources.Explanation)
				}
			}
		}
		if replans != 1 {
			t.Errorf("%d other plans, want 1", replans)
		}
	})
}

// TestMeet_FewerContainers: replicas that have gone through some rounds together
// and then no longer fit at once go on one by one from where they are, although
// the log does not know how far they were.
func TestMeet_FewerContainers(t *testing.T) {
	r := recipe{replicas: 3, rounds: 8, epochs: 4}
	digest := golden(t, r)
	for reads := 0; reads < 40; reads += 3 * points.Stride {
		bubble(t, func(t *testing.T) {
			small := 200 * job.MB
			w := newWorld(t, noFaults)
			w.cloud.limits.PoolMemory = 3 * 128 * job.MB
			w.cloud.delay = 200 * time.Millisecond
			// After some reads one replica runs out of memory.
			w.cloud.exhaust = func(task job.Task, memory job.Bytes, nth int) bool {
				return task.Meet && task.Replica == 1 && memory < small && nth > reads
			}
			record, err := control.Run(t.Context(), w.config(), r.created())
			if err != nil {
				t.Fatal(err)
			}
			w.checkEnded(record, job.Succeeded, digest)
		})
		if t.Failed() {
			t.Fatalf("out of memory after %d reads", reads)
		}
	}
}

// TestMeet_Crashes kills the controller again and again while replicas go through
// rounds that the log does not know of, with and without the calls in flight.
func TestMeet_Crashes(t *testing.T) {
	r := recipe{replicas: 3, rounds: 8, epochs: 4}
	digest := golden(t, r)
	for _, lose := range []bool{true, false} {
		for _, life := range points.Some([]time.Duration{700 * time.Millisecond, 1500 * time.Millisecond, 4 * time.Second}) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, noFaults)
				w.cloud.delay = 50 * time.Millisecond
				for controller := 0; ; controller++ {
					if controller == 100 {
						t.Fatal("no progress")
					}
					own := newLife()
					cfg := control.Config{
						Platform: &mortal{Platform: w.cloud, life: own},
						Store:    &brittle{Store: w.store.Share(), gate: func(string) error { return own.alive() }},
						Observe:  func(control.State) {},
					}
					timer := time.AfterFunc(life, own.kill)
					_, err := control.Resume(t.Context(), cfg, jobID)
					if errors.Is(err, control.ErrNoJob) {
						_, err = control.Run(t.Context(), cfg, r.created())
					}
					timer.Stop()
					if err == nil || errors.Is(err, control.ErrEnded) {
						break
					}
					checkHistory(t, w.history())
					if lose {
						w.cloud.lose()
					}
				}
				w.checkEnded(w.resume(), job.Succeeded, digest)
			})
			if t.Failed() {
				t.Fatalf("controllers live for %v, their calls lost: %v", life, lose)
			}
		}
	}
}

// TestMeet_Progress: replicas that meet are seen to go on before any invocation
// has ended.
func TestMeet_Progress(t *testing.T) {
	r := recipe{replicas: 3, rounds: 8, epochs: 4}
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		w.cloud.delay = 200 * time.Millisecond
		cfg := w.config()
		seen, last := map[int]bool{}, 0
		cfg.Observe = func(s control.State) {
			p := s.Progress()
			if p.Phase != "train" || p.Done == 0 {
				return
			}
			if p.Done < last || p.Done > p.Total || p.Round > p.Rounds {
				t.Errorf("progress %+v after %d steps", p, last)
			}
			seen[p.Round], last = true, p.Done
		}
		record, err := control.Run(t.Context(), cfg, r.created())
		if err != nil {
			t.Fatal(err)
		}
		w.checkEnded(record, job.Succeeded, digest)
		if len(seen) < 4 {
			t.Errorf("seen after %d different rounds; want more", len(seen))
		}
	})
}

// TestMeet_Sweep: what replicas that meet leave in the store does not grow with
// the number of rounds.
func TestMeet_Sweep(t *testing.T) {
	r := recipes[4]
	golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		var most atomic.Int32
		w.cloud.observe = func(string) {
			left, err := w.store.List(context.Background(), job.Keys{Job: jobID}.Scratch())
			if err != nil && !errors.Is(err, store.ErrClosed) {
				t.Error(err)
			}
			n := int32(0)
			for _, key := range left {
				if strings.Contains(key, "/step/") {
					n++
				}
			}
			if n > most.Load() {
				most.Store(n)
			}
		}
		record, err := control.Run(t.Context(), w.config(), r.created())
		if err != nil || record.Rounds < 6 {
			t.Fatalf("%d rounds, %v", record.Rounds, err)
		}
		// Three averages before the oldest is swept, and a state of each replica.
		if limit := int32(3 + r.replicas); most.Load() > limit || most.Load() < 3 {
			t.Errorf("%d states at once, want at most %d", most.Load(), limit)
		}
	})
}
