// SPDX-License-Identifier: Apache-2.0

// Package control is the controller: it carries a job from its spec to its
// result. It hides in which order things happen and what is done when they go
// wrong.
//
// Four parts: events.go says what can have happened, fold.go turns events into
// a state, decide.go turns a state into what to do next, run.go does it (with
// journal.go, invoke.go, watch.go and end.go: the log, the calls, progress, the
// end). The first
// three are pure. The event log in the store is the truth: after a crash the
// controller folds it again and goes on.
//
//	            +--------------------- event log --------------------+
//	            v                                                    |
//	events -> fold -> State -> decide -> actions -> run -> platform, store
//
// Invariants:
//
//  1. What has an effect outside is logged before it is done (an invocation), or
//     can be done again without harm (everything else).
//  2. Only the log says what counts. A worker that is late, repeated or out of
//     order changes nothing: states are keyed by step, and the first result of a
//     unit of work that the log has is the one that counts.
//  3. A job that is finished stays finished.
//  4. Every wait and every retry is bounded.
//  5. Two controllers of one job cannot both go on: the append of the slower one
//     conflicts. Each has a package of its own on the platform, so that the one
//     that stops cannot end the calls of the other.
//  6. What is only known here has no effect that cannot be repeated: the
//     controller deletes objects once the log says that nothing will read them.
//     Replicas that meet are further than the log and delete what they have all
//     passed; whoever then starts where the log is finds them by the newest
//     average.
package control
