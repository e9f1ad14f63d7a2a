// SPDX-License-Identifier: Apache-2.0

// Package platformtest is the suite that every platform passes: the contract of
// package platform, as tests. It hides how each promise is provoked, with a
// worker of its own (testworker) that does on request what workers do when they
// go wrong.
//
// A platform's test makes a [Harness] and calls [Run].
package platformtest
