// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// runSlice lets steps take the given times, the last of them again and again,
// and returns the step at which the machine stopped, when, and how.
func runSlice(from, to int, budget time.Duration, costs ...time.Duration) (step int, took time.Duration, how verdict) {
	start := time.Date(2020, 5, 1, 12, 0, 0, 0, time.UTC)
	now := start
	s := newSlice(from, to, budget, now)
	for s.decide() == takeStep {
		now = now.Add(costs[min(s.next-from, len(costs)-1)])
		s = s.stepped(now)
	}
	return s.next, now.Sub(start), s.decide()
}

func TestSlice(t *testing.T) {
	for _, c := range []struct {
		name     string
		from, to int
		budget   time.Duration
		costs    []time.Duration
		step     int
		how      verdict
	}{
		{"no budget", 0, 5, 0, []time.Duration{time.Hour}, 5, finish},
		{"enough", 2, 7, 50 * ms, []time.Duration{10 * ms}, 7, finish},
		{"the last step fits exactly", 0, 3, 30 * ms, []time.Duration{10 * ms}, 3, finish},
		{"one more would not fit", 0, 4, 39 * ms, []time.Duration{10 * ms}, 3, handOver},
		{"the first step alone is too long", 0, 4, ms, []time.Duration{10 * ms}, 1, handOver},
		{"the only step is too long", 6, 7, ms, []time.Duration{10 * ms}, 7, finish},
		{"the longest step counts, not the last", 0, 9, 100 * ms, []time.Duration{60 * ms, ms}, 1, handOver},
		{"a step turns out long", 0, 9, 100 * ms, []time.Duration{ms, ms, 500 * ms}, 3, handOver},
		{"steps in no time", 0, 9, ms, []time.Duration{0}, 9, finish},
		{"nothing to do", 4, 4, ms, []time.Duration{ms}, 4, finish},
	} {
		if step, _, how := runSlice(c.from, c.to, c.budget, c.costs...); step != c.step || how != c.how {
			t.Errorf("%s: stopped at %d with %v; want %d with %v", c.name, step, how, c.step, c.how)
		}
	}
}

// TestSlice_OneStepAtLeastAndOneTooManyAtMost: every invocation makes progress,
// and none overruns its budget by more than the step that it was in.
func TestSlice_OneStepAtLeastAndOneTooManyAtMost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		costs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.IntRange(0, 1000).Draw(t, "ms")) * ms
		}), 1, 30).Draw(t, "costs")
		budget := time.Duration(rapid.IntRange(1, 5000).Draw(t, "budget")) * ms
		from := rapid.IntRange(0, 100).Draw(t, "from")
		step, took, how := runSlice(from, from+len(costs), budget, costs...)
		taken := step - from
		if taken < 1 {
			t.Fatalf("no step in %v", budget)
		}
		if (how == finish) != (taken == len(costs)) {
			t.Fatalf("%d of %d steps, verdict %v", taken, len(costs), how)
		}
		if before := took - costs[taken-1]; taken > 1 && before > budget {
			t.Fatalf("step %d began %v after the start, the budget is %v", taken, before, budget)
		}
	})
}
