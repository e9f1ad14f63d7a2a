// SPDX-License-Identifier: Apache-2.0

// Package lint holds the rules of the source tree as tests: which package may
// import which, what the programs link, and how files look. It exports nothing.
// .golangci.yml repeats the import rules for editors; where the two differ,
// this package is right.
//
// The rules are the tables at the top of each test file. A new package fails
// here until it has a line in them.
package lint
