// SPDX-License-Identifier: Apache-2.0

// Package sim is tests only: whole jobs in a seeded world of faults. The
// controller, the planner and the worker are the real ones; the platform runs
// tasks in this process, on a store in memory, and loses, kills, delays and
// repeats them as the seed says. Time is virtual, so that no test waits.
//
// What must hold whatever happens:
//
//  1. The trained model has the digest of the run without faults.
//  2. The event log is one that a correct controller writes, see checkHistory.
//  3. Nothing stays behind: no scratch objects, no packages.
//
// A failing seed prints the command that repeats it:
//
//	go test ./internal/sim -run TestSimulation -seed=N
package sim
