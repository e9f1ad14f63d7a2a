// SPDX-License-Identifier: Apache-2.0

// Package formattest writes the formats that package format reads, well-formed
// or not, for the tests of what reads them. It shares nothing with package
// format. What cannot fail here panics.
package formattest
