// SPDX-License-Identifier: Apache-2.0

// Package report turns results into text for people and JSON for programs. It
// hides layout: which figures stand where, how they are rounded. It is pure:
// what it prints depends on its arguments alone, and it writes only to the
// writer that it is given.
package report
