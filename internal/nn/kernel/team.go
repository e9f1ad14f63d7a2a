// SPDX-License-Identifier: Apache-2.0

package kernel

import "sync/atomic"

// spins is how often a waiting member of a team looks before it sleeps: some
// hundreds of microseconds, longer than the work between two kernels of a step
// and between two steps. To wake a thread takes tens of microseconds, and on a
// busy machine milliseconds.
const spins = 200000

// Team is a fixed number of threads that run the parts of one piece of work at
// a time. The caller is one of them; the others are goroutines that live until
// Close. A team is used by one goroutine at a time. A nil team is one thread.
//
// No part may depend on another's, and no result on the number of threads.
type Team struct {
	spin    bool
	members []member // all but the caller
	work    func(part, parts int)
	turn    atomic.Uint32 // counts pieces of work
	running atomic.Int32  // members that are not done with this one
	caller  sleeper
}

type member struct {
	sleeper
	_ [64]byte // no two in one cache line
}

// sleeper is one goroutine that sleeps until another says that what it waits
// for may have happened.
type sleeper struct {
	asleep atomic.Bool
	wake   chan struct{}
}

// wait returns once ready does. Ready turns true only before rouse is called.
func (s *sleeper) wait(spin bool, ready func() bool) {
	if spin {
		for range spins {
			if ready() {
				return
			}
		}
	}
	for !ready() {
		s.asleep.Store(true)
		// Who asked to be woken and then finds that it need not sleep must take
		// the call that may be under way.
		if ready() && s.asleep.CompareAndSwap(true, false) {
			return
		}
		<-s.wake
	}
}

// rouse wakes the sleeper if it sleeps or is about to.
func (s *sleeper) rouse() {
	if s.asleep.CompareAndSwap(true, false) {
		s.wake <- struct{}{}
	}
}

// NewTeam returns a team of the given number of threads, nil for one or fewer.
// With spin its members wait for the next piece of work in a loop for a while
// before they sleep: faster, where each has a processor for itself.
func NewTeam(threads int, spin bool) *Team {
	if threads < 2 {
		return nil
	}
	t := &Team{spin: spin, members: make([]member, threads-1)}
	t.caller.wake = make(chan struct{}, 1)
	for i := range t.members {
		t.members[i].wake = make(chan struct{}, 1)
		go t.serve(i)
	}
	return t
}

// Threads returns the number of threads, the caller's included.
func (t *Team) Threads() int {
	if t == nil {
		return 1
	}
	return len(t.members) + 1
}

// Close ends the team's goroutines and returns when they do nothing more. It
// may be called again.
func (t *Team) Close() {
	if t == nil || len(t.members) == 0 {
		return
	}
	t.run(nil)
	t.members = nil
}

// run calls work(part, Threads()) once for each part, at once, and returns when
// all have returned. Work must not panic in a member: it would end the process.
func (t *Team) run(work func(part, parts int)) {
	t.work = work
	t.running.Store(int32(len(t.members)))
	t.turn.Add(1)
	for i := range t.members {
		t.members[i].rouse()
	}
	if work != nil {
		work(0, len(t.members)+1)
	}
	t.caller.wait(t.spin, func() bool { return t.running.Load() == 0 })
}

// serve is a member's life.
func (t *Team) serve(i int) {
	me, seen := &t.members[i], uint32(0)
	parts := len(t.members) + 1
	for {
		me.wait(t.spin, func() bool { return t.turn.Load() != seen })
		seen++
		work := t.work
		if work != nil {
			work(i+1, parts)
		}
		if t.running.Add(-1) == 0 {
			t.caller.rouse()
		}
		if work == nil {
			return
		}
	}
}

// share returns the part [from, to) of n things that is part's, as even as can
// be.
func share(n, part, parts int) (from, to int) { return n * part / parts, n * (part + 1) / parts }
