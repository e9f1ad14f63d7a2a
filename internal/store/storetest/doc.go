// SPDX-License-Identifier: Apache-2.0

// Package storetest holds the contract of [disdel/internal/store.Store] as one
// suite of tests that every implementation passes. It hides which tests there
// are: an implementation calls [Run] and nothing else.
//
// The suite sees only the interface, so that what it cannot see (files, damage,
// power failures) is for each implementation's own tests.
package storetest
