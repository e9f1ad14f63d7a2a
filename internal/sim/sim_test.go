// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"testing"
	"time"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/points"
	"disdel/internal/store"
)

var (
	oneSeed   = flag.Uint64("seed", 0, "the one seed that TestSimulation tries; 0 tries the first -seeds")
	seedCount = flag.Uint64("seeds", uint64(points.Count(200)), "how many seeds TestSimulation tries")
)

// TestSimulation runs jobs in worlds where nothing can be relied on: however
// calls, workers, stores and controllers fail, the model is the same.
func TestSimulation(t *testing.T) {
	for _, r := range recipes {
		golden(t, r)
	}
	first, last := uint64(1), *seedCount
	if *oneSeed != 0 {
		first, last = *oneSeed, *oneSeed
	}
	for seed := first; seed <= last; seed++ {
		bubble(t, func(t *testing.T) { simulate(t, seed) })
		if t.Failed() {
			t.Fatalf("to repeat it: go test ./internal/sim -run TestSimulation -seed=%d", seed)
		}
	}
}

func simulate(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	r := recipes[rng.IntN(len(recipes))]
	w := newWorld(t, seededFaults(seed, rng))
	interrupts := rng.IntN(6)
	for round := 0; ; round++ {
		var err error
		var record job.Record
		life := newLife()
		brittle := &brittle{Store: w.store.Share(), gate: func(string) error { return life.alive() }}
		mortal := &mortal{Platform: w.cloud, life: life}
		if round < interrupts {
			switch rng.IntN(4) {
			case 0: // a crash after some append
				left := 1 + rng.IntN(12)
				brittle.appended = func() {
					if left--; left == 0 {
						life.kill()
					}
				}
			case 1: // a crash before or after some call
				mortal.killAt = 1 + rng.IntN(60)
			case 2: // a fault of the controller's store
				brittle.failAt, brittle.after = 1+rng.IntN(80), rng.IntN(2) == 0
			case 3: // a fault that does not pass
				brittle.failAt, brittle.after, brittle.failWith = 1+rng.IntN(80), rng.IntN(2) == 0, store.ErrCorrupt
			}
		}
		cfg := control.Config{Platform: mortal, Store: brittle}
		record, err = control.Resume(t.Context(), cfg, jobID)
		if errors.Is(err, control.ErrNoJob) {
			record, err = control.Run(t.Context(), cfg, r.created())
		}
		checkHistory(t, w.history())
		if err == nil || errors.Is(err, control.ErrEnded) && record.Status == job.Succeeded && round >= interrupts {
			w.checkEnded(record, job.Succeeded, goldens[r])
			return
		}
		if round > interrupts+1 {
			t.Fatalf("controller %d, with no fault of its own: %v", round, err)
		}
		life.kill() // what it still does is too late
		if rng.IntN(2) == 0 {
			w.cloud.lose()
		}
	}
}

// seededFaults chooses by the seed and the call alone, whatever the order in
// which calls come. A call is not disturbed more often than the controller
// tries; containers that are too small and slices that are too long stay so.
func seededFaults(seed uint64, rng *rand.Rand) chooser {
	rate := rng.Float64() * 0.7
	needs := []job.Bytes{0, 0, 150 * job.MB, 400 * job.MB}[rng.IntN(4)]
	longest := []time.Duration{time.Hour, time.Hour, 20 * time.Second, 4 * time.Second}[rng.IntN(4)]
	return func(t job.Task, nth int, memory job.Bytes) fault {
		switch {
		case memory < needs:
			return outOfMemory
		case t.Role == job.RoleTrain && t.Budget > longest:
			return timedOut
		case nth >= 3:
			return none
		}
		hash := fnv.New64a()
		fmt.Fprint(hash, string(mustJSON(t)), nth)
		own := rand.New(rand.NewPCG(seed, hash.Sum64()))
		if own.Float64() >= rate {
			return none
		}
		return fault(own.IntN(int(outOfMemory)))
	}
}

// TestTwoControllers lets a second controller take the job over after each
// event of the first: the first stops and does the second no harm.
func TestTwoControllers(t *testing.T) {
	r := recipes[0]
	digest := golden(t, r)
	for at, more := 1, true; more; at++ {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, noFaults)
			taken := make(chan job.Record, 1)
			events, started := 0, false
			first := w.config()
			first.Store = &brittle{Store: w.store.Share(), appended: func() {
				if events++; events == at {
					started = true
					go func() {
						record, err := control.Resume(context.WithoutCancel(t.Context()), w.config(), jobID)
						if err != nil && !errors.Is(err, control.ErrEnded) {
							t.Errorf("second controller after %d entries: %v", at, err)
						}
						taken <- record
					}()
					time.Sleep(time.Millisecond) // virtual: the second one goes first
				}
			}}
			record, err := control.Run(t.Context(), first, r.created())
			if more = started; !started {
				w.checkEnded(record, job.Succeeded, digest)
				return
			}
			second := <-taken
			ended := err == nil && record.Status == job.Succeeded // it had nothing left to log
			if !ended && !errors.Is(err, control.ErrTaken) {
				t.Errorf("first controller, taken over after %d entries: %v", at, err)
			}
			w.checkEnded(second, job.Succeeded, digest)
		})
		if t.Failed() {
			t.Fatalf("taken over after %d log entries", at)
		}
	}
}

// TestTwoResume: two controllers take a job over at once, and the one that comes
// too late does not learn that from its own append. It leaves alone what is the
// other one's: the package and the fence of the same number.
func TestTwoResume(t *testing.T) {
	r := recipes[0]
	digest := golden(t, r)
	doubt := errors.New("the connection was reset")
	for name, c := range map[string]struct {
		// readable: the log can be read after the append.
		readable bool
		want     error
	}{
		"resolved":      {true, control.ErrTaken},
		"left in doubt": {false, doubt},
	} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, noFaults)
			w.cloud.limits.NoCancel = true
			life := newLife()
			first := w.config()
			entries := 0
			first.Store = &brittle{Store: w.store.Share(), gate: func(string) error { return life.alive() }, appended: func() {
				if entries++; entries == 4 {
					life.kill()
				}
			}}
			if _, err := control.Run(t.Context(), first, r.created()); !errors.Is(err, errDead) {
				t.Fatalf("%s: the killed controller: %v", name, err)
			}
			w.cloud.lose()
			won := make(chan job.Record, 1)
			late := false
			loser := w.config()
			loser.Store = &brittle{Store: w.store.Share(), gate: func(op string) error {
				switch {
				case op == "append" && !late:
					late = true
					time.Sleep(time.Millisecond) // virtual: not at the same nanosecond
					go func() {
						record, err := control.Resume(context.WithoutCancel(t.Context()), w.config(), jobID)
						if err != nil {
							t.Errorf("%s: the winner: %v", name, err)
						}
						won <- record
					}()
					time.Sleep(50 * time.Millisecond) // virtual: the winner's calls run
					return doubt
				case late && !c.readable:
					return doubt
				}
				return nil
			}}
			if _, err := control.Resume(t.Context(), loser, jobID); !errors.Is(err, c.want) {
				t.Errorf("%s: the loser: %v, want %v", name, err, c.want)
			}
			record := <-won
			for _, a := range w.history() {
				if e := a.Ended; e != nil && e.Kind != platform.Success {
					t.Errorf("%s: a call of the winner: %s, %s", name, e.Kind, e.Message)
				}
			}
			w.checkEnded(record, job.Succeeded, digest)
		})
	}
}

// TestSameIDTwice starts a job under the id of one that runs: the second is
// refused and leaves the first alone.
func TestSameIDTwice(t *testing.T) {
	r := oneByOne
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		tried := false
		cfg := w.config()
		cfg.Observe = func(s control.State) {
			if s.Round != 1 || tried {
				return
			}
			tried = true
			if _, err := control.Run(t.Context(), w.config(), r.created()); !errors.Is(err, control.ErrTaken) {
				t.Errorf("the second job: %v, want ErrTaken", err)
			}
		}
		record, err := control.Run(t.Context(), cfg, r.created())
		if err != nil || !tried {
			t.Fatalf("first: %v; second tried: %v", err, tried)
		}
		w.checkEnded(record, job.Succeeded, digest)
	})
}
