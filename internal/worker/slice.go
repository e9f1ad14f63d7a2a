// SPDX-License-Identifier: Apache-2.0

package worker

import "time"

// verdict is what a slice does next.
type verdict int

const (
	// takeStep: train on the next batch.
	takeStep verdict = iota
	// handOver: store the state and return early, so that another invocation
	// goes on.
	handOver
	// finish: store the state, the slice is done.
	finish
)

// slice is the loop of a training invocation as a pure machine: it is told when
// a step has ended and says what to do next. It stops while there is still time
// for one more step as long as the longest so far. It takes at least one step,
// so that every invocation makes progress.
//
//	takeStep --stepped--> takeStep ... --stepped--> finish   (all steps done)
//	                                  \--stepped--> handOver (budget used up)
type slice struct {
	next, end int           // the next step and the one to stop before
	budget    time.Duration // 0 is no bound
	first     int
	start     time.Time
	previous  time.Time
	longest   time.Duration
}

func newSlice(from, to int, budget time.Duration, now time.Time) slice {
	return slice{next: from, end: to, first: from, budget: budget, start: now, previous: now}
}

// stepped says that the step s.next has ended.
func (s slice) stepped(now time.Time) slice {
	s.longest = max(s.longest, now.Sub(s.previous))
	s.previous = now
	s.next++
	return s
}

// met says that the time since the last step went into meeting the others: it
// does not count as a step's.
func (s slice) met(now time.Time) slice {
	s.previous = now
	return s
}

// over says whether the budget is used up.
func (s slice) over(now time.Time) bool {
	return s.budget > 0 && now.Sub(s.start) > s.budget
}

func (s slice) decide() verdict {
	switch {
	case s.next >= s.end:
		return finish
	case s.budget > 0 && s.next > s.first && s.previous.Sub(s.start)+s.longest > s.budget:
		return handOver
	default:
		return takeStep
	}
}
