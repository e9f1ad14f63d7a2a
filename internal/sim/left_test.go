// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"testing"
	"time"

	"disdel/internal/control"
	"disdel/internal/job"
)

// TestLeft: a store far slower than the plan could know makes a job slow; once it
// has trained for a while, what it is said to take still is about right.
func TestLeft(t *testing.T) {
	for _, r := range []recipe{
		{replicas: 3, rounds: 16, epochs: 8},
		{replicas: 3, rounds: 16, epochs: 8, containers: 2},
	} {
		digest := golden(t, r)
		bubble(t, func(t *testing.T) {
			w := newWorld(t, noFaults)
			w.cloud.delay = 200 * time.Millisecond
			cfg := w.config()
			type guess struct {
				at   time.Time
				left time.Duration
				done float64
			}
			var guesses []guess
			var trained time.Time
			cfg.Observe = func(s control.State) {
				left, ok := s.Left(time.Now())
				p := s.Progress()
				if ok != (p.Phase == "train") {
					t.Errorf("in the phase %q %v is left: %v", p.Phase, left, ok)
				}
				if ok {
					guesses = append(guesses, guess{time.Now(), left, float64(p.Done) / float64(p.Total)})
				} else if p.Phase == "evaluate" && trained.IsZero() {
					trained = time.Now()
				}
			}
			record, err := control.Run(t.Context(), cfg, r.created())
			if err != nil {
				t.Fatal(err)
			}
			w.checkEnded(record, job.Succeeded, digest)
			checked := 0
			for _, g := range guesses {
				if g.done < 0.3 || g.done > 0.9 {
					continue
				}
				checked++
				if actual := trained.Sub(g.at); g.left < actual/2 || g.left > 2*actual {
					t.Errorf("%+v: with %.0f %% done %v is left; it was %v", r, 100*g.done, g.left, actual)
				}
			}
			if checked < 5 {
				t.Errorf("%d guesses of %d: the test tests nothing", checked, len(guesses))
			}
		})
	}
}
